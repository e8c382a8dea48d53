"""Pictures of what a model sees and forgets: palettes, strips, curves, heat maps, flows.

Colours are there without matplotlib, which is imported with the first figure.
"""

from typing import TYPE_CHECKING

from sparcl_lib.lazy import lazy_names

if TYPE_CHECKING:
    from sparcl_lib.viz.experiments import forest_plot, order_lines, switch_heat_map, trade_off
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
    "order_lines",
    "prediction_strips",
    "row_shares",
    "small_png",
    "step_heat_map",
    "switch_heat_map",
    "to_png",
    "trade_off",
]

_HOMES = {
    "ALL_CLASSES": "sparcl_lib.viz.figures",
    "FIRST_CLASSES": "sparcl_lib.viz.figures",
    "MethodStyle": "sparcl_lib.viz.palette",
    "class_palette": "sparcl_lib.viz.palette",
    "colorize": "sparcl_lib.viz.palette",
    "confusion_flow": "sparcl_lib.viz.flows",
    "forest_plot": "sparcl_lib.viz.experiments",
    "forgetting_curves": "sparcl_lib.viz.figures",
    "method_colors": "sparcl_lib.viz.palette",
    "method_styles": "sparcl_lib.viz.palette",
    "miou_curves": "sparcl_lib.viz.figures",
    "order_lines": "sparcl_lib.viz.experiments",
    "prediction_strips": "sparcl_lib.viz.figures",
    "row_shares": "sparcl_lib.viz.flows",
    "small_png": "sparcl_lib.viz.png",
    "step_heat_map": "sparcl_lib.viz.figures",
    "switch_heat_map": "sparcl_lib.viz.experiments",
    "to_png": "sparcl_lib.viz.png",
    "trade_off": "sparcl_lib.viz.experiments",
}
"""Public name -> the module that defines it."""


if not TYPE_CHECKING:  # type checkers see the imports above
    __getattr__ = lazy_names(__name__, _HOMES)
