"""Make `import torchvision` work beside a CPU build of torch.

torchvision's Linux wheels on the package index are CUDA builds. Beside a CPU-only torch their
compiled extension cannot load, and `import torchvision` (0.28) fails with "operator
torchvision::nms does not exist" while it registers shapes for two operators. Declaring the two
first lets the pure-Python parts (transforms, models) work. Import this module before torchvision
and before whatever imports it, such as `lpips`. It can go when torchvision publishes CPU wheels on
the index or imports without its extension.
"""

import torch

_OPERATORS = ("nms", "qnms")

# The library object must live as long as the process: its destructor takes the declarations back.
_library: torch.library.Library | None = None
if torch.version.cuda is None and not hasattr(torch.ops.torchvision, "nms"):
    _library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for _name in _OPERATORS:
        _library.define(  # type: ignore[no-untyped-call]
            f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )
