"""The kinds of synthetic image there are: their classes, settings and sample functions."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from data_prep.errors import UserError
from data_prep.synthetic.core import CORE_CLASSES, CoreParameters, core_sample
from data_prep.synthetic.lattice import LatticeParameters, lattice_image
from data_prep.synthetic.lattice_classes import LATTICE_CLASSES
from data_prep.synthetic.lens_system import LENSING_CLASSES, LensingParameters
from data_prep.synthetic.lensing import check_lensing, lensing_sample
from data_prep.synthetic.rheed import RHEED_CLASSES, RheedParameters, rheed_sample
from data_prep.synthetic.sample import NPY, PNG, PNG16, Parameters, Request, Sample, single_image
from data_prep.synthetic.sem_depth import SEM_CLASSES, SemDepthParameters, sem_depth_sample


@dataclass(frozen=True)
class Kind:
    """One kind of image.

    Attributes:
        name: what `--kind` says.
        summary: a sentence on what the images show.
        classes: its classes, each with a description.
        parameters: the type of its settings, whose defaults are those of the set.
        sample: makes one sample of a class by its index; depends on nothing else.
        size: (height, width) if none is asked for, in pixels.
        square: whether only squares can be made.
        formats: file formats it can write, the usual one first.
        check: looks for settings that do not go together.
        display_power: exponent by which dark images are lightened on a contact sheet.
    """

    name: str
    summary: str
    classes: Mapping[str, str]
    parameters: type[Parameters]
    sample: Callable[[str, int, Request], Sample]
    size: tuple[int, int] = (128, 128)
    square: bool = False
    formats: tuple[str, ...] = (PNG,)
    check: Callable[[Request], None] = lambda request: None
    display_power: float = 1.0


def _lattice_sample(class_name: str, index: int, request: Request) -> Sample:
    assert isinstance(request.parameters, LatticeParameters)
    pixels, crystal = lattice_image(
        class_name,
        index,
        seed=request.seed,
        image_size=request.height,
        parameters=request.parameters,
    )
    return single_image(class_name, index, pixels, asdict(crystal))


_ALL = (
    Kind(
        "lattice",
        "Scanning transmission electron micrographs of 13 crystal classes: Gaussian atom columns "
        "on one or two sublattices, with jitter, an unsteady scan and noise.",
        {name: lattice.description for name, lattice in LATTICE_CLASSES.items()},
        LatticeParameters,
        _lattice_sample,
        square=True,
    ),
    Kind(
        "lensing",
        "Strong gravitational lenses: without a lens, smooth, with subhaloes, with a vortex.",
        LENSING_CLASSES,
        LensingParameters,
        lensing_sample,
        square=True,
        formats=(PNG, NPY),
        check=check_lensing,
    ),
    Kind(
        "rheed",
        "Electron diffraction from surfaces (RHEED): spots, streaks, rings and reconstructions.",
        RHEED_CLASSES,
        RheedParameters,
        rheed_sample,
        formats=(PNG, PNG16),
        display_power=0.5,
    ),
    Kind(
        "sem_depth",
        "Holes of four depths: depth maps, two simulated SEM pictures of each, and pictures of a "
        "'real' domain of which only the mean depth of the site is known.",
        SEM_CLASSES,
        SemDepthParameters,
        sem_depth_sample,
        size=(72, 48),
        formats=(PNG, PNG16, NPY),
    ),
    Kind(
        "core",
        "Colour photographs of drill cores: massive, layered, cracked, brecciated.",
        CORE_CLASSES,
        CoreParameters,
        core_sample,
    ),
)

KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}


def find_kind(name: str) -> Kind:
    """The kind of this name; UserError if there is none."""
    if name not in KINDS:
        raise UserError(f"no kind '{name}'; there are {', '.join(KINDS)}")
    return KINDS[name]
