"""What the metadata of a task's fields may say; known to those who load no JAX."""

# A field that holds tasks, each with a `type` of its own.
RECIPES = "recipes"
