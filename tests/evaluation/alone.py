"""One figure at a time, where the package works out many over the same draws, and folders in place of what they hold."""

from dasd.evaluation.compare import compare_runs
from dasd.evaluation.estimators import differences_of_ratios, macro_averages, macro_draws, ratios_of_sums
from dasd.evaluation.groups import read_groups


def ratio_of_sums(numerators, denominators, seed=0):
    return ratios_of_sums({"": (numerators, denominators)}, seed)[""]


def difference_of_ratios(before, after, seed=0):
    return differences_of_ratios({"": before}, {"": after}, seed)[""]


def macro_average(benchmarks):
    return macro_averages([{"": pair} for pair in benchmarks])[""]


def macro_difference(before, after):
    """As `compare` has it."""
    first, second = (macro_draws([{"": pair} for pair in benchmarks])[""] for benchmarks in (before, after))
    return (second - first).estimate


def comparison(*folders):
    return compare_runs(read_groups([str(folder) for folder in folders]))
