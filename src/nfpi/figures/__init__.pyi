from .curves import draw_curves as draw_curves
from .curves import write_curves as write_curves
from .drawn import Drawn as Drawn
from .drawn import FigureInputs as FigureInputs
from .drawn import draw_figure as draw_figure
from .drawn import register_figure as register_figure
from .drawn import save_drawn as save_drawn
from .style import COLUMN_WIDTH as COLUMN_WIDTH
from .style import FigureError as FigureError
from .style import notice as notice

__all__ = [
    "COLUMN_WIDTH",
    "Drawn",
    "FigureError",
    "FigureInputs",
    "draw_curves",
    "draw_figure",
    "notice",
    "register_figure",
    "save_drawn",
    "write_curves",
]
