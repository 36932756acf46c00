"""The estimators by name; a class is imported when its name is used."""

_EVOLUTION = "pes_cluster.estimators.evolution"
_DIFFERENTIATION = "pes_cluster.estimators.differentiation"

ESTIMATORS: dict[str, str] = {
    "pes": f"{_EVOLUTION}.pes:PES",
    "truncated_es": f"{_EVOLUTION}.truncated_es:TruncatedES",
    "full_es": f"{_EVOLUTION}.full_es:FullES",
    "nres": f"{_EVOLUTION}.nres:NRES",
    "es_single": f"{_EVOLUTION}.es_single:ESSingle",
    "gpes": f"{_EVOLUTION}.gpes:GPES",
    "tbptt": f"{_DIFFERENTIATION}.tbptt:TBPTT",
    "bptt": f"{_DIFFERENTIATION}.bptt:BPTT",
}
