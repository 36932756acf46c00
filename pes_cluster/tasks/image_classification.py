"""The inner problem of the image tasks: minibatches for an MLP, and how it is judged.

A step of such a task trains on one minibatch and is judged after it on a fresh one. Its
minibatches depend on the step's key alone: where trajectories share the key they stay
unbatched under vmap, and the first layers of all become one matrix product.
"""

import dataclasses
from typing import Any, ClassVar, Literal, NoReturn, get_args

import jax
import jax.numpy as jnp
import numpy as np

from pes_cluster.core.task import TaskError
from pes_cluster.models import mlp
from pes_cluster.tasks import datasets
from pes_cluster.tasks.images import Images

Objective = Literal["train_loss", "validation_loss", "validation_accuracy"]

_CLASSES = 10


@dataclasses.dataclass(frozen=True)
class ImageClassification:
    """What the image tasks share; a task adds theta and how the network is trained.

    Everything is in float32. The defaults are a small problem on the shipped digits.

    Attributes:
        dataset: Which images.
        data_dir: Where the files of a set that is not shipped are: the folder that
            holds them or their folder, or "download"; None for the environment
            variable PES_DATA_DIR.
        image_size: Rows and columns to average the images down to; None keeps theirs.
        hidden: Units of each hidden layer.
        episode_length: T, the number of training steps.
        batch_size: Images in a minibatch, drawn with replacement.
        objective: Of a step: the loss on a fresh minibatch of the training or of the
            validation split, or minus the accuracy on one of the latter (piecewise
            constant: evolution only).
        max_loss: A loss above it, or not finite, counts as this much. It bounds what
            one diverged network adds to an estimate; None for no bound.
    """

    dataset: datasets.Name = "digits"
    data_dir: str | None = None
    image_size: int | None = None
    hidden: tuple[int, ...] = (32, 32)
    episode_length: int = 1000
    batch_size: int = 100
    objective: Objective = "train_loss"
    max_loss: float | None = None

    name: ClassVar[str]
    discrete: ClassVar[bool] = False  # Whether theta holds whole numbers.

    def __post_init__(self) -> None:
        for field, allowed in (("dataset", datasets.Name), ("objective", Objective)):
            if getattr(self, field) not in get_args(allowed):
                self.refuse(field, f"one of {', '.join(get_args(allowed))}")
        for field in ("batch_size", "episode_length"):
            self.check_positive(field)
        if self.max_loss is not None and not self.max_loss > 0:
            self.refuse("max_loss", "positive, or null for no bound")
        if any(units < 1 for units in self.hidden):
            self.refuse("hidden", "positive numbers of units")

    @property
    def differentiable(self) -> bool:
        """Whether a gradient through the objective says anything."""
        return not self.discrete and self.objective != "validation_accuracy"

    def check_positive(self, field: str) -> None:
        """Refuses a field that is not above zero."""
        if not getattr(self, field) > 0:
            self.refuse(field, "positive")

    def refuse(self, field: str, expected: str) -> NoReturn:
        """Raises a TaskError that names the field."""
        raise TaskError(
            f"{self.name}: {field} must be {expected}, not {getattr(self, field)!r}"
        )

    def network(self, key: jax.Array) -> list[mlp.Layer]:
        """Initialises the network from the key (see `models.mlp.init`)."""
        pixels = self.images().train_images.shape[1]
        return mlp.init(key, (pixels, *self.hidden, _CLASSES))

    def gradient(
        self, layers: list[mlp.Layer], key: jax.Array, masks: Any = ()
    ) -> list[mlp.Layer]:
        """The gradient of the loss on the training minibatch of a key."""
        batch = self.minibatch(key, validation=False)
        return jax.grad(cross_entropy)(layers, *batch, masks)

    def judged(
        self, layers: list[mlp.Layer], key: jax.Array, masks: Any = ()
    ) -> jax.Array:
        """The objective on the minibatch of a key, a scalar."""
        batch = self.minibatch(key, validation=self.objective != "train_loss")
        if self.objective != "validation_accuracy":
            return self._bounded(cross_entropy(layers, *batch, masks))
        inputs, labels = batch
        hits = jnp.argmax(mlp.apply(layers, inputs, masks), axis=-1) == labels
        return -jnp.mean(hits, dtype=jnp.float32)

    def minibatch(
        self, key: jax.Array, *, validation: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Standardised images [b, pixels] and labels [b], drawn with replacement."""
        data = self.images()
        images = data.validation_images if validation else data.train_images
        labels = data.validation_labels if validation else data.train_labels
        rows = jax.random.randint(
            key, (self.batch_size,), 0, len(labels), dtype=jnp.int32
        )
        pixels = jnp.asarray(images)[rows].astype(jnp.float32)
        standard = (pixels - np.float32(data.offset)) / np.float32(data.scale)
        return standard, jnp.asarray(labels)[rows].astype(jnp.int32)

    def images(self) -> Images:
        """The data set, read once a process."""
        return datasets.load(self.dataset, self.data_dir, self.image_size)

    def _bounded(self, loss: jax.Array) -> jax.Array:
        if self.max_loss is None:
            return loss
        # NaN fails the comparison, so it takes the bound too.
        return jnp.where(loss < self.max_loss, loss, jnp.float32(self.max_loss))


def cross_entropy(
    layers: list[mlp.Layer], inputs: jax.Array, labels: jax.Array, masks: Any = ()
) -> jax.Array:
    """Mean negative log likelihood of labels [b] given inputs [b, pixels]."""
    log_probabilities = jax.nn.log_softmax(mlp.apply(layers, inputs, masks))
    return -jnp.mean(jnp.take_along_axis(log_probabilities, labels[:, None], axis=1))
