"""What can be trained. The only package that knows torch; it knows nothing of optuna, mlflow or search.

classification   cross-entropy, accuracy and confusion counts: the objective of a study that names none
regression       the mean squared error of one number
supervised       what these two have in common: data, networks of one family, measuring, saving
hyperparameters  names, kinds, ranges and defaults (without torch)
population       the training of P slots of one structure: admission, eviction, measuring, best weights
paired           how sure a change of a slot's validation loss is
task             a slot of a population, and what its slots learn
rows             how the slots' numbers are kept and updated: what both ways have in common
compact          rows close together, each updated by fused kernels: on a CPU
captured         rows that stay where they are, updated by a CUDA graph: on a GPU
network          what an objective asks of its networks
own_network      objectives whose networks are modules of one's own
fused            a user's own modules, unchanged, as a stack of P networks
slotwise         torch's functions as one slot sees them: dropout at its own rate, attention
dry_run          what such a module needs and cannot do, found by running it
models           MLP and CNN, as one stack of P networks and as a plain module of one
flat             all parameters of a slot as one row, and the named stacks that are views of the rows
memory           rows that take memory when they are first written
numbers          the slots' own hyperparameters as vectors; what an update draws at random
layers           stacked Linear, Conv2d, BatchNorm, dropout: the leading dimension is the slot
optimizers       SGD, Adam, AdamW with one lr, momentum and weight decay per slot
one_pass         Adam and AdamW of all rows as one CUDA kernel
regularizers     L1 and L2 penalties, one strength per slot
schedules        learning rates over a trial's updates
augment          flips, shift, rotation, crops, noise, words left out, per example and with a strength per slot
streams          random numbers from (seed, purpose, counter)
probe            which precision is fast on this device
data             data resident on the device: a training and a validation part
parts            which examples a [data] table names, and which of them a search may see; the stratified split
test_set         the test set: the only module that reads one
folds            which examples a slot trains on and is measured on: folds, fractions, ranks of features
inputs           what a network sees of an example: scaled, some features left out
datasets         cifar10, mnist, fashion_mnist, digits: downloaded, verified, parsed
imdb             the IMDB reviews as bags of words
own              one's own .npz file or folder of images, or a few examples
saved            networks rebuilt from saved weights, measured and exported
"""

OBJECTIVES = {
    "classification": "objectives.classification:Classification",
    "regression": "objectives.regression:Regression",
}
"""The name in a study file -> "package.module:Name", imported when a trainer needs it."""
