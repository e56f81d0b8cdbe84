"""Several embeddings of the same images side by side."""

import hashlib
import json
import logging
import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_prep.errors import UserError
from data_prep.manifest.groups import inner_paths
from data_prep.manifest.identity import Image
from data_prep.manifest.places import short_names
from data_prep.storage import (
    check_new_folder,
    is_complete,
    may_be_complete,
    new_folder,
    note_complete,
)
from simclr_tf.embedding.analyze import explore_data, shown_rows
from simclr_tf.embedding.compute import embed
from simclr_tf.embedding.settings import EmbedConfig, names_in
from simclr_tf.embedding.stored import (
    MANIFEST,
    TABLE,
    Finder,
    StoredEmbedding,
    find_all,
    is_stored,
    open_stored,
    read_rows,
)
from simclr_tf.evaluation.neighbors import Progress
from simclr_tf.explore.compare import write_comparison

log = logging.getLogger(__name__)

_DERIVED = ("kmeans", "hdbscan")


def compare_embeddings(
    config: EmbedConfig,
    given: Collection[str] = frozenset(),
    progress: Progress = lambda done, total: None,
) -> str:
    """Puts embeddings side by side; runs among them are embedded first, beside the page.

    Args:
        config: `compare` names folders of embeddings or runs.
        given: See `embed`.
        progress: Called with (images done, images in all).

    Returns:
        Where the page is.

    Raises:
        UserError: Fewer than two folders, or such that hold neither.
    """
    names = names_in(config.page.compare)
    if len(names) < 2:
        raise UserError("give two folders or more, separated by commas", setting="compare")
    output = Path(config.storage.output).expanduser().absolute()
    if not may_be_complete(output):
        check_new_folder(output)
    folders = [_embedding_of(name, output, config, given, progress) for name in names]
    stored = [open_stored(folder, "compare") for folder in folders]
    titles = [os.path.basename(name.rstrip("/")) for name in names]
    if len(set(titles)) < len(titles):
        titles = list(names)
    pinned, most, seed = (
        names_in(config.page.pinned),
        config.page.explore_limit,
        config.measures.seed,
    )
    asked = [[str(one.folder), one.facts] for one in stored], titles, pinned, most, seed
    plan = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    if is_complete(output, plan):
        return f"{output} is complete"
    return str(write_page(stored, titles, output, pinned, most, seed, plan=plan))


def _embedding_of(
    name: str, output: Path, config: EmbedConfig, given: Collection[str], progress: Progress
) -> Path:
    """The folder of an embedding: as named, or made of a run."""
    folder = Path(name).expanduser()
    if is_stored(folder):
        return folder
    if not folder.is_dir():
        raise UserError("no such folder", setting="compare", value=name)
    images = config.images
    if not images.image_dir and not images.manifest:
        listed = folder / MANIFEST
        if not listed.is_file():
            raise UserError(
                f"has no {MANIFEST}; give --image_dir or --manifest", setting="compare", value=name
            )
        images = replace(images, manifest=str(listed))
    made = output.with_name(f"{output.name}_{folder.absolute().name}")
    own = replace(
        config,
        images=images,
        features=replace(config.features, encoder=name),
        storage=replace(config.storage, output=str(made), worker=0, num_workers=1),
        page=replace(config.page, explore=False),
    )
    log.info("embedding %s into %s", name, made)
    embed(own, given, progress)
    return made


def write_page(
    stored: Sequence[StoredEmbedding],
    titles: Sequence[str],
    output: Path,
    pinned: Sequence[str],
    most: int,
    seed: int = 0,
    *,
    plan: str = "",
) -> Path:
    """Writes a page that shows embeddings side by side, with the same images in each.

    Args:
        stored: The embeddings.
        titles: One each.
        output: Folder to make.
        pinned: Names of images to follow through all; without any the page chooses.
        most: Images shown at most: a seeded sample of those that all embeddings have.
        seed: Of the sample.
        plan: Hash of all that decides the folder, which it is known by afterwards; empty = none.

    Returns:
        The page.

    Raises:
        UserError: The embeddings share no images, a pinned name is unknown or ambiguous, or the
            folder holds something.
    """
    first, places = stored[0], [_places(one) for one in stored]
    common = _in_all(places)
    if not common:
        places = [_places(one, anywhere=True) for one in stored]
        common = _in_all(places)
        if not common:
            raise UserError("the embeddings have no image in common", setting="compare")
        log.warning(
            "the images lie in different folders; those of the same path below the folder that"
            " holds all of them are taken for the same"
        )
    if len(common) < max(len(one) for one in stored):
        log.warning("%d images are in all embeddings; only they are shown", len(common))
    rows = np.array([places[0][place] for place in common])
    chosen = _pinned(first, rows, pinned)
    drawn = set(shown_rows([first.columns["label"][r] for r in rows], most, seed).tolist())
    shown = [p for i, p in enumerate(common) if i in drawn or places[0][p] in chosen]
    names = dict(zip(places[0], short_names(first.images), strict=True))
    runs = []
    for one, own, title in zip(stored, places, titles, strict=True):
        called = [names.get(place, "") for place in own]
        table = read_rows(one.folder / TABLE)
        derived = {name: table[name] for name in _DERIVED if name in table}
        runs.append(explore_data(one, np.array([own[p] for p in shown]), derived, called, title))
    with new_folder(output) as folder:
        name = write_comparison(folder, runs, [short_names(first.images)[r] for r in chosen]).name
        if plan:
            note_complete(folder, plan)
    return output / name


def _places(stored: StoredEmbedding, *, anywhere: bool = False) -> dict[Image, int]:
    """Row of every image; `anywhere` names it by its path below the folder that holds all."""
    images = stored.images.images()
    if anywhere:
        inner = zip(images, inner_paths(stored.images), strict=True)
        images = [image._replace(file=path) for image, path in inner]
    return {image: row for row, image in enumerate(images)}


def _in_all(places: Sequence[dict[Image, int]]) -> list[Image]:
    return [place for place in places[0] if all(place in other for other in places[1:])]


def _pinned(first: StoredEmbedding, rows: np.ndarray, names: Sequence[str]) -> list[int]:
    chosen = find_all(Finder(first), names, "pinned")
    known = set(rows.tolist())
    for name, row in zip(names, chosen, strict=True):
        if row not in known:
            raise UserError(f"{name} is not in all of the embeddings", setting="pinned")
    return list(dict.fromkeys(chosen))
