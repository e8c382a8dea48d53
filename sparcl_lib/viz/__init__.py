"""Pictures of what a model sees and forgets: palettes, strips, curves, heat maps, flows."""

from sparcl_lib.viz.experiments import forest_plot, switch_heat_map, trade_off
from sparcl_lib.viz.figures import (
    ALL_CLASSES,
    FIRST_CLASSES,
    forgetting_curves,
    miou_curves,
    prediction_strips,
    step_heat_map,
)
from sparcl_lib.viz.flows import confusion_flow, row_shares
from sparcl_lib.viz.palette import (
    MethodStyle,
    class_palette,
    colorize,
    method_colors,
    method_styles,
)
from sparcl_lib.viz.png import small_png, to_png

__all__ = [
    "ALL_CLASSES",
    "FIRST_CLASSES",
    "MethodStyle",
    "class_palette",
    "colorize",
    "confusion_flow",
    "forest_plot",
    "forgetting_curves",
    "method_colors",
    "method_styles",
    "miou_curves",
    "prediction_strips",
    "row_shares",
    "small_png",
    "step_heat_map",
    "switch_heat_map",
    "to_png",
    "trade_off",
]
