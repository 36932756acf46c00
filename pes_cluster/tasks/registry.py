"""The tasks by name; a class is imported when its name is used (config/recipes.py)."""

TASKS: dict[str, str] = {
    "toy_regression": "pes_cluster.tasks.toy_regression:ToyRegression",
    "influence_balancing": "pes_cluster.tasks.influence_balancing:InfluenceBalancing",
    "mlp_learning_rate_schedule": (
        "pes_cluster.tasks.mlp_learning_rate_schedule:MLPLearningRateSchedule"
    ),
    "learned_optimizer": "pes_cluster.tasks.learned_optimizer:LearnedOptimizer",
    "character_model": "pes_cluster.tasks.character_model:CharacterModel",
    "ridge_regression": "pes_cluster.tasks.ridge_regression:RidgeRegression",
    "lorenz": "pes_cluster.tasks.lorenz:Lorenz",
    "multi_task": "pes_cluster.tasks.multi_task:MultiTask",
    "mlp_hyperparameters": "pes_cluster.tasks.mlp_hyperparameters:MLPHyperparameters",
    "optimizer_hyperparameters": (
        "pes_cluster.tasks.optimizer_hyperparameters:OptimizerHyperparameters"
    ),
}
