"""Meta-training with Persistent Evolution Strategies, from a laptop to a Ray cluster.

    import pes_cluster as pes

    config = pes.RunConfig(
        task=pes.ToyRegression(),
        estimator=pes.PES(num_particles=100, truncation_length=10, sigma=0.3),
        outer=pes.OuterSettings(pes.Adam(learning_rate=0.01)),
    )
    result = pes.run(config)

Importing the package imports neither Ray nor matplotlib.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pes_cluster.cluster.settings import (
        CheckpointSettings as CheckpointSettings,
    )
    from pes_cluster.cluster.settings import ClusterSettings as ClusterSettings
    from pes_cluster.cluster.settings import PerShard as PerShard
    from pes_cluster.cluster.settings import RunSettings as RunSettings
    from pes_cluster.config.decode import ConfigError as ConfigError
    from pes_cluster.config.run_config import OuterSettings as OuterSettings
    from pes_cluster.config.run_config import RunConfig as RunConfig
    from pes_cluster.config.run_config import load as load_config  # noqa: F401
    from pes_cluster.estimators.differentiation.bptt import BPTT as BPTT
    from pes_cluster.estimators.differentiation.forward_gradient import (
        ForwardGradient as ForwardGradient,
    )
    from pes_cluster.estimators.differentiation.rtrl import RTRL as RTRL
    from pes_cluster.estimators.differentiation.tbptt import TBPTT as TBPTT
    from pes_cluster.estimators.differentiation.uoro import UORO as UORO
    from pes_cluster.estimators.evolution.ars import ARS as ARS
    from pes_cluster.estimators.evolution.es_single import ESSingle as ESSingle
    from pes_cluster.estimators.evolution.full_es import FullES as FullES
    from pes_cluster.estimators.evolution.gpes import GPES as GPES
    from pes_cluster.estimators.evolution.nres import NRES as NRES
    from pes_cluster.estimators.evolution.openai_es import OpenAIES as OpenAIES
    from pes_cluster.estimators.evolution.pes import PES as PES
    from pes_cluster.estimators.evolution.pes_analytic import (
        PESAnalytic as PESAnalytic,
    )
    from pes_cluster.estimators.evolution.truncated_es import (
        TruncatedES as TruncatedES,
    )
    from pes_cluster.estimators.search.random_search import (
        RandomSearch as RandomSearch,
    )
    from pes_cluster.outer import SGD as SGD
    from pes_cluster.outer import Adam as Adam
    from pes_cluster.outer import RMSProp as RMSProp
    from pes_cluster.runner import Result as Result
    from pes_cluster.runner import resume as resume
    from pes_cluster.runner import run as run
    from pes_cluster.tasks.character_model import CharacterModel as CharacterModel
    from pes_cluster.tasks.influence_balancing import (
        InfluenceBalancing as InfluenceBalancing,
    )
    from pes_cluster.tasks.learned_optimizer import LearnedOptimizer as LearnedOptimizer
    from pes_cluster.tasks.lorenz import Lorenz as Lorenz
    from pes_cluster.tasks.mlp_hyperparameters import (
        MLPHyperparameters as MLPHyperparameters,
    )
    from pes_cluster.tasks.mlp_learning_rate_schedule import (
        MLPLearningRateSchedule as MLPLearningRateSchedule,
    )
    from pes_cluster.tasks.multi_task import MultiTask as MultiTask
    from pes_cluster.tasks.optimizer_hyperparameters import (
        OptimizerHyperparameters as OptimizerHyperparameters,
    )
    from pes_cluster.tasks.ridge_regression import RidgeRegression as RidgeRegression
    from pes_cluster.tasks.schedules import Hyperparameter as Hyperparameter
    from pes_cluster.tasks.toy_regression import ToyRegression as ToyRegression

_EVOLUTION = "pes_cluster.estimators.evolution"
_DIFFERENTIATION = "pes_cluster.estimators.differentiation"
_PUBLIC = {
    "ARS": f"{_EVOLUTION}.ars:ARS",
    "Adam": "pes_cluster.outer:Adam",
    "BPTT": f"{_DIFFERENTIATION}.bptt:BPTT",
    "CharacterModel": "pes_cluster.tasks.character_model:CharacterModel",
    "CheckpointSettings": "pes_cluster.cluster.settings:CheckpointSettings",
    "ClusterSettings": "pes_cluster.cluster.settings:ClusterSettings",
    "ConfigError": "pes_cluster.config.decode:ConfigError",
    "ESSingle": f"{_EVOLUTION}.es_single:ESSingle",
    "ForwardGradient": f"{_DIFFERENTIATION}.forward_gradient:ForwardGradient",
    "FullES": f"{_EVOLUTION}.full_es:FullES",
    "GPES": f"{_EVOLUTION}.gpes:GPES",
    "Hyperparameter": "pes_cluster.tasks.schedules:Hyperparameter",
    "InfluenceBalancing": "pes_cluster.tasks.influence_balancing:InfluenceBalancing",
    "LearnedOptimizer": "pes_cluster.tasks.learned_optimizer:LearnedOptimizer",
    "Lorenz": "pes_cluster.tasks.lorenz:Lorenz",
    "MLPHyperparameters": "pes_cluster.tasks.mlp_hyperparameters:MLPHyperparameters",
    "MLPLearningRateSchedule": (
        "pes_cluster.tasks.mlp_learning_rate_schedule:MLPLearningRateSchedule"
    ),
    "MultiTask": "pes_cluster.tasks.multi_task:MultiTask",
    "NRES": f"{_EVOLUTION}.nres:NRES",
    "OpenAIES": f"{_EVOLUTION}.openai_es:OpenAIES",
    "OptimizerHyperparameters": (
        "pes_cluster.tasks.optimizer_hyperparameters:OptimizerHyperparameters"
    ),
    "OuterSettings": "pes_cluster.config.run_config:OuterSettings",
    "PES": f"{_EVOLUTION}.pes:PES",
    "PESAnalytic": f"{_EVOLUTION}.pes_analytic:PESAnalytic",
    "PerShard": "pes_cluster.cluster.settings:PerShard",
    "RMSProp": "pes_cluster.outer:RMSProp",
    "RTRL": f"{_DIFFERENTIATION}.rtrl:RTRL",
    "RandomSearch": "pes_cluster.estimators.search.random_search:RandomSearch",
    "Result": "pes_cluster.runner:Result",
    "RidgeRegression": "pes_cluster.tasks.ridge_regression:RidgeRegression",
    "RunConfig": "pes_cluster.config.run_config:RunConfig",
    "RunSettings": "pes_cluster.cluster.settings:RunSettings",
    "SGD": "pes_cluster.outer:SGD",
    "TBPTT": f"{_DIFFERENTIATION}.tbptt:TBPTT",
    "ToyRegression": "pes_cluster.tasks.toy_regression:ToyRegression",
    "TruncatedES": f"{_EVOLUTION}.truncated_es:TruncatedES",
    "UORO": f"{_DIFFERENTIATION}.uoro:UORO",
    "load_config": "pes_cluster.config.run_config:load",
    "resume": "pes_cluster.runner:resume",
    "run": "pes_cluster.runner:run",
}

__version__ = "0.1.0"
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
