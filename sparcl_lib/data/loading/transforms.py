"""Image and mask in step: torchvision v2 transforms on tv_tensors."""

import torch
from torchvision.transforms import v2

from sparcl_lib.errors import UserError

# Of the ImageNet photographs on which torchvision's weights were trained (RGB, range 0..1).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def training_transform(size: int, scale: tuple[float, ...] | None) -> v2.Compose:
    """uint8 image (3, H, W) and mask (H, W) -> (3, size, size) and (size, size), still uint8.

    A random crop, `scale` (smallest, largest) times the image's area and of ratio 3/4..4/3, resized
    (image bilinear, mask nearest), flipped at random: the protocol of MiB and SDR. Without `scale`
    the centre square is used as in evaluation, flipped at random; what lies outside is never seen.
    """
    if scale is None:
        return v2.Compose([*_centre_square(size), v2.RandomHorizontalFlip()])
    crop = v2.RandomResizedCrop(size, scale=scale, ratio=(3 / 4, 4 / 3), antialias=True)
    return v2.Compose([crop, v2.RandomHorizontalFlip()])


def evaluation_transform(size: int) -> v2.Compose:
    """Shorter side to `size` pixels, centre crop: what the published numbers are computed on."""
    return v2.Compose(_centre_square(size))


def whole_image(image: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Image and mask as they are: the transform of tests on whole images."""
    return image, mask


def _centre_square(size: int) -> list[v2.Transform]:
    return [v2.Resize(size, antialias=True), v2.CenterCrop(size)]


def normalise(images: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 3, H, W) -> float32 as torchvision's weights expect it, channels last in memory.

    Raises UserError for images of another dtype: what 1 is in them is not known.
    """
    if images.dtype != torch.uint8:
        raise UserError(f"images must be uint8, 0 to 255, got {images.dtype}")
    width = images.shape[3]
    mean, std = (x.flatten().repeat(width) for x in _constants(images.device))
    # In rows of 3 W numbers: four times faster than three constants over channels that lie last.
    numbers = images.permute(0, 2, 3, 1).flatten(2).to(torch.float32)
    numbers = numbers.mul_(1 / (255 * std)).sub_(mean / std)
    return numbers.reshape(*numbers.shape[:2], width, 3).permute(0, 3, 1, 2)


def to_rgb(image: torch.Tensor) -> torch.Tensor:
    """The normalised image (3, H, W) as uint8 again, for pictures."""
    mean, std = _constants(image.device)
    return ((image * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)


def _constants(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """ImageNet's mean and standard deviation, (3, 1, 1) each; filled in on the device, for a copy
    makes a GPU wait."""
    numbers = (IMAGENET_MEAN, IMAGENET_STD)
    mean, std = (torch.stack([torch.full((1, 1), x, device=device) for x in xs]) for xs in numbers)
    return mean, std
