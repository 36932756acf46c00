"""The online learners by name; a class is imported when its name is used."""

LEARNERS: dict[str, str] = {
    "least_mean_squares": "pes_cluster.learners.least_mean_squares:LeastMeanSquares",
}

REFERENCES: dict[str, str] = {"least_mean_squares": "Widrow and Hoff 1960"}
