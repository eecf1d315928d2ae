"""TrivialAugment: Müller, Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation".

arXiv 2103.10158, in its wide form as in torchvision: one of 14 operations at one of 31 strengths, drawn for each image.
"""

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import TrivialAugmentWide

from moonshine.data.order import derived_seed


class TrivialAugment:
    """torchvision's TrivialAugmentWide on Pillow images; what it draws depends on (seed, epoch, index) alone."""

    def __init__(self, seed: int, epoch: int):
        self._position, self._transform = (seed, epoch), TrivialAugmentWide()

    def __call__(self, image: Image.Image, index: int) -> Image.Image:
        """The grey or RGB image at `index` of the training split, augmented: another of the same size and mode."""
        before = torch.default_generator.get_state()  # torchvision draws from this one, which has other users
        torch.default_generator.manual_seed(derived_seed("trivial augment", *self._position, index))
        try:
            return self._transform(image)
        finally:
            torch.default_generator.set_state(before)

    def of_batch(self, images: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        """The same for uint8 (batch, channels, height, width) on the CPU, the images at `indices`."""
        several = images.permute(0, 2, 3, 1).numpy()
        pixels = [self._augmented(image, index) for image, index in zip(several, indices.tolist())]
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()

    def _augmented(self, pixels: np.ndarray, index: int) -> np.ndarray:
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))
        return np.asarray(self(image, index)).reshape(pixels.shape)
