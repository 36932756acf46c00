"""The estimators by name, and who proposed them; classes are imported when used."""

_EVOLUTION = "pes_cluster.estimators.evolution"
_SEARCH = "pes_cluster.estimators.search"
_DIFFERENTIATION = "pes_cluster.estimators.differentiation"

ESTIMATORS: dict[str, str] = {
    "pes": f"{_EVOLUTION}.pes:PES",
    "pes_analytic": f"{_EVOLUTION}.pes_analytic:PESAnalytic",
    "truncated_es": f"{_EVOLUTION}.truncated_es:TruncatedES",
    "full_es": f"{_EVOLUTION}.full_es:FullES",
    "nres": f"{_EVOLUTION}.nres:NRES",
    "es_single": f"{_EVOLUTION}.es_single:ESSingle",
    "gpes": f"{_EVOLUTION}.gpes:GPES",
    "openai_es": f"{_EVOLUTION}.openai_es:OpenAIES",
    "ars": f"{_EVOLUTION}.ars:ARS",
    "random_search": f"{_SEARCH}.random_search:RandomSearch",
    "tbptt": f"{_DIFFERENTIATION}.tbptt:TBPTT",
    "bptt": f"{_DIFFERENTIATION}.bptt:BPTT",
    "rtrl": f"{_DIFFERENTIATION}.rtrl:RTRL",
    "uoro": f"{_DIFFERENTIATION}.uoro:UORO",
    "forward_gradient": f"{_DIFFERENTIATION}.forward_gradient:ForwardGradient",
}

REFERENCES: dict[str, str] = {
    "pes": "Vicol, Metz, Sohl-Dickstein, ICML 2021, Algorithm 2",
    "pes_analytic": "Vicol, Metz, Sohl-Dickstein, ICML 2021, PES+Analytic",
    "truncated_es": "Vicol, Metz, Sohl-Dickstein, ICML 2021, Algorithm 1",
    "full_es": "Rechenberg 1973; Salimans et al. 2017",
    "nres": "Li, Harrison, Sohl-Dickstein, Smith, Metz, NeurIPS 2023",
    "es_single": "Vicol, ICML 2023",
    "gpes": "Li, Harrison, Sohl-Dickstein, Smith, Metz, NeurIPS 2023",
    "openai_es": "Salimans et al. 2017, with centred ranks",
    "ars": "Mania, Guy, Recht 2018, V1 and V1-t",
    "random_search": "Bergstra and Bengio 2012",
    "tbptt": "Williams and Peng 1990",
    "bptt": "Werbos 1990",
    "rtrl": "Williams and Zipser 1989",
    "uoro": "Tallec and Ollivier 2017",
    "forward_gradient": "Silver et al., ICLR 2022 (DODGE)",
}
