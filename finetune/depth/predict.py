"""`simclr-depth-predict` as a function: from a trained model and images to a folder of maps."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from data_prep.errors import UserError, setting_renamed
from data_prep.manifest.manifest import Manifest
from data_prep.outputs import stamps
from data_prep.storage import is_complete, partial_folder
from finetune.depth.measure import measure_depths
from finetune.depth.page import DepthPageContents, write_depth_page
from finetune.depth.pairs import DepthSet
from finetune.depth.pipeline import (
    Background,
    Pipeline,
    folder_state,
    parse_background,
    predict_depths,
)
from finetune.depth.results import DepthResults
from finetune.depth.router import Router
from finetune.depth.settings import DepthPredictConfig
from finetune.trained import open_trained
from simclr_tf.training.callbacks import read_metrics

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

_HISTORY = "history.csv"
_NOT_LEARNT = frozenset({"seconds", "learning_rate", "weight_decay"})


@dataclass(frozen=True)
class DepthRequest:
    """A request for depth maps: models, output and options.

    Attributes:
        model: Folder of `simclr-depth-train`.
        output: New folder.
        router: Folder of a classifier whose classes are cases; empty = none.
        translator: Folder of a `simclr-depth-train --direction=real`; empty = none.
        route_before: Route images before they are translated.
        blend: See `Pipeline`.
        background: Surface to level; None = none.
        archive_format: See `write_archive`.
        batch_size: Images of a pass.
        resamples: Bootstrap samples behind the intervals.
        seed: Of the resampling.
        command: Program and arguments, for the report.
    """

    model: str
    output: Path
    router: str
    translator: str
    route_before: bool
    blend: bool
    background: Background | None
    archive_format: str
    batch_size: int
    resamples: int
    seed: int
    command: Sequence[str] = field(default_factory=tuple)

    @staticmethod
    def of(config: DepthPredictConfig, command: Sequence[str] = ()) -> "DepthRequest":
        """The request that settings make.

        Args:
            config: All settings of `simclr-depth-predict`.
            command: Program and arguments, for the report.

        Raises:
            UserError: The known surface is no depth, or two of one case.
        """
        p, surface, measure = config.prediction, config.surface, config.measure
        return DepthRequest(
            p.model,
            Path(p.output),
            p.router,
            p.translator,
            p.route_before_translation,
            p.blend_cases,
            parse_background(surface.surface_depth, surface.surface_tolerance),
            p.archive,
            p.batch_size,
            measure.bootstrap,
            measure.seed,
            command,
        )


def predict_folder(
    request: DepthRequest,
    pipeline: Pipeline,
    manifest: Manifest,
    site_means: Mapping[str, float] | None = None,
    progress: Callable[[str], Progress] = lambda what: lambda done, total: None,
) -> DepthResults | None:
    """Writes depth maps and, where anything is known of the images, numbers and a page.

    The folder is there whole or not at all. What a stopped call has done is taken up by the next
    one with the same request.

    Args:
        request: The request.
        pipeline: From `open_pipeline`.
        manifest: The images; their targets and groups serve to measure.
        site_means: Site (the manifest's group) -> known mean depth.
        progress: Makes a progress callback, of what is counted.

    Returns:
        The numbers; `empty` if nothing is known; None if the same request was finished before.

    Raises:
        UserError: Images, models or settings that do not go together; an output that is there.
    """
    pipeline.check(manifest)
    images = DepthSet(manifest)
    plan = _plan(request, manifest, site_means)
    if is_complete(request.output, plan):
        return None
    with partial_folder(request.output, plan) as folder:
        predict_depths(
            pipeline,
            manifest,
            folder,
            images.images,
            batch_size=request.batch_size,
            archive_format=request.archive_format,
            progress=progress("images"),
        )
        measurement = measure_depths(
            folder,
            manifest,
            pipeline,
            images.targets,
            site_means=site_means,
            resamples=request.resamples,
            seed=request.seed,
            batch_size=request.batch_size,
            progress=progress("images measured"),
        )
        if not measurement.results.empty:
            measurement.results.save(folder)
            facts = DepthPageContents(
                about(pipeline, request), request.command, histories(request.model)
            )
            write_depth_page(folder, manifest, measurement, images.images, images.targets, facts)
    return measurement.results


def open_pipeline(request: DepthRequest) -> Pipeline:
    """Opens models, router and translator.

    Raises:
        UserError: One of them cannot be opened, or router and generators know other cases.
    """
    from finetune.depth.trained import Translator, load_depth_models

    for name in ("model", "router", "translator"):
        path = getattr(request, name)
        if path and not Path(path).is_dir():
            raise UserError("no such folder", setting=name, value=path)
    models = load_depth_models(request.model)
    translator = Translator.load(request.translator) if request.translator else None
    router = None
    if request.router and set(models) != {""}:
        with setting_renamed(model="router"):
            trained = open_trained(request.router)
        router = Router(trained, sorted(models), request.batch_size)
    elif request.router:
        raise UserError(
            f"{request.model} has one generator for all cases; leave it out, or train"
            " with --per_case",
            setting="router",
        )
    return Pipeline(
        models, router, translator, request.route_before, request.blend, request.background
    )


def about(pipeline: Pipeline, request: DepthRequest) -> tuple[str, ...]:
    """Describes the models and steps that made the maps, in sentences."""
    scale = pipeline.scale
    kinds = ", ".join(sorted({model.kind for model in pipeline.models.values()}))
    known = f"{scale.depth_min:g} to {scale.depth_max:g} {scale.unit or 'units'}"
    told = [f"Model: {kinds} of {request.model}, trained on depths from {known}."]
    if not pipeline.one_for_all:
        by = f"the classifier {request.router}" if pipeline.router else "the manifest"
        cases = ", ".join(sorted(pipeline.models))
        told.append(f"A generator a case ({cases}); which one an image goes to is said by {by}.")
        if pipeline.blend:
            told.append("Maps are the mean over all of them, weighted by its probabilities.")
    if pipeline.translator:
        told.append(
            f"Real images were first translated to simulated ones by {request.translator}"
            + ("; the router saw them before that." if pipeline.router and request.route_before
               else ".")
        )  # fmt: skip
    if pipeline.background:
        b = pipeline.background
        depths = ", ".join(
            f"{depth:g} ({case or 'all other cases' if len(b.depths) > 1 else case or 'all cases'})"
            for case, depth in b.depths.items()
        )
        told.append(
            f"Depths within {b.tolerance:g} of the known surface, {depths}, were set to it."
        )
    return tuple(told)


def histories(model: str) -> dict[str, dict[str, np.ndarray]]:
    """Reads the training log of every generator, by case; "" = one for all."""
    found = {}
    for path in sorted([*Path(model).glob(_HISTORY), *Path(model).glob(f"case_*/{_HISTORY}")]):
        name = "" if path.parent == Path(model) else path.parent.name.removeprefix("case_")
        columns = {
            column: values
            for column, values in read_metrics(path).items()
            if column.rpartition("/")[2] not in _NOT_LEARNT
        }
        if len(columns) > 1:
            found[name] = columns
    return found


def _plan(request: DepthRequest, manifest: Manifest, site_means: Mapping[str, float] | None) -> str:
    """Hash of all that decides what is written; of the images' files sizes and times count."""
    folders = [request.model, request.router, request.translator]
    settings = asdict(request) | {"output": "", "command": list(request.command)}
    settings["background"] = repr(request.background)
    facts = [
        settings,
        [folder_state(folder) for folder in folders if folder],
        manifest.sha256(),
        stamps([*manifest.files(), *filter(None, manifest.target_files())]),
        sorted((site_means or {}).items()),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
