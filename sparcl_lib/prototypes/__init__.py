"""Running class prototypes, and the class sums that they and the losses share."""

from sparcl_lib.prototypes.bank import PrototypeBank
from sparcl_lib.prototypes.sums import class_means, class_sums

__all__ = ["PrototypeBank", "class_means", "class_sums"]
