# SPDX-License-Identifier: Apache-2.0
"""From a checkout to three images: objects → bases → contexts → build → normalise → load → smoke → names.

Names come last and all together: whatever fails or is interrupted before leaves no name changed. What
was finished by then is found again by the hash of its inputs, so that a re-run goes on from there.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder import labels as image_labels
from builder.assemble import Assembler, Prepared
from builder.cache import scratch
from builder.describe import Described, describe
from builder.engine import Engine, ImageFacts
from builder.interrupt import undisturbed
from builder.kernels import KernelVerdict, kernels_of
from builder.naming import name_all
from builder.normalise import normalise
from builder.objects import ObjectSet
from builder.prepared import ROOT_LABEL
from builder.progress import Progress
from builder.provenance import BuildFacts
from builder.recipes import Recipe
from builder.request import ImageResult, LayerSize, Request
from builder.smoke import smoke_run

_SPACE = 2_500_000_000  # what the archives of one image take while it is normalised

_WEEK = 7 * 24  # hours that steps of earlier builds are kept, to build on


@dataclass(frozen=True)
class Finished:
    """An image that is in the engine, not named yet."""

    prepared: Prepared
    facts: ImageFacts
    built: bool
    smoke: tuple[str, ...]
    seconds: float


class Pipeline:
    """One run of the pipeline.

    Args:
        request: what is asked for.
        engine: where it is built.
        objects: what was compiled.
        kernels: the verdicts about known kernels.
        progress: told what happens.
    """

    def __init__(
        self,
        request: Request,
        engine: Engine,
        objects: ObjectSet,
        kernels: tuple[KernelVerdict, ...],
        progress: Progress,
    ) -> None:
        self._request, self._engine, self._objects = request, engine, objects
        self._kernels, self._progress = kernels, progress
        # The engine's build cache knows no step with a value that it has not seen.
        self._nonce = uuid.uuid4().hex if request.rebuild else ""
        self._assembler = Assembler(request, engine, objects, progress)

    def run(self, *, named: Callable[[], None] = lambda: None) -> list[ImageResult]:
        """Build what is not there, describe all images, name them.

        Args:
            named: called as soon as all have their names, before an interrupt can be noticed.

        Raises:
            KmeshError: something failed; no name has changed then, or it says which.
        """
        with scratch(self._request.cache, need=_SPACE) as place:
            finished = [self._one(image, place / image.name) for image in self._request.images]
        results = [self._describe(done) for done in finished]
        wanted = {self._request.reference(d.prepared.image): d.facts.id for d in finished}
        with undisturbed():
            nameless = name_all(self._engine, wanted)
            named()
        if self._engine.private:
            self._clean_up(nameless)
        return results

    def _one(self, image: Recipe, place: Path) -> Finished:
        start = time.monotonic()
        place.mkdir()
        prepared = self._assembler.assemble(image, place)
        facts = None if self._request.rebuild else self._there(prepared)
        built = facts is None
        facts = facts or self._build(prepared, place)
        smoke: tuple[str, ...] = ()
        if built or not facts.tags:  # one that has a name has been run
            self._progress.step(image.name, "smoke", "running it")
            smoke = smoke_run(self._engine, facts.id, image, self._request.checkout.version)
        seconds = time.monotonic() - start
        shutil.rmtree(place)
        self._progress.done(image.name, f"{'built' if built else 'unchanged'} ({seconds:.1f} s)")
        return Finished(prepared, facts, built, smoke, seconds)

    def _there(self, prepared: Prepared) -> ImageFacts | None:
        return self._engine.find_labelled(image_labels.INPUTS, prepared.key)

    def _build(self, prepared: Prepared, place: Path) -> ImageFacts:
        image, checkout = prepared.image, self._request.checkout
        self._progress.step(image.name, "build", f"with {self._engine.description}")
        with prepared.context.open("rb") as stream:
            raw = self._engine.build(
                stream,
                what=image.repository,
                network=prepared.base.network,
                arguments={"BUILD": self._nonce},
                say=lambda line: self._progress.detail(image.name, line),
            )
        self._progress.step(image.name, "normalise", "dating it at the commit")
        saved, normal = place / "saved.tar", place / "normal.tar"
        with saved.open("wb") as target:
            self._engine.save(raw, target)
        made = normalise(
            saved,
            normal,
            base=prepared.base.layers,
            parts=list(prepared.digests),
            created=checkout.created,
            epoch=checkout.epoch,
            labels={image_labels.INPUTS: prepared.key},
        )
        self._progress.step(image.name, "load", made.id)
        with normal.open("rb") as source:
            loaded = self._engine.load(source, what=image.repository)
        if raw != loaded:
            self._engine.remove(raw)
        facts = self._engine.find(loaded)
        assert facts
        return facts

    def _clean_up(self, nameless: Sequence[ImageFacts]) -> None:
        for old in nameless:
            if len(old.tags) == 1:
                self._engine.remove(old.id)
        self._engine.prune(hours=_WEEK, but=ROOT_LABEL)

    def _describe(self, done: Finished) -> ImageResult:
        image, base = done.prepared.image, done.prepared.base
        self._progress.step(image.name, "describe", "bill of materials and provenance")
        reference = self._request.reference(image)
        facts = BuildFacts(
            reference=reference,
            image_id=done.facts.id,
            inputs=done.prepared.key,
            base=base,
            parts=done.prepared.digests,
            dockerfile=done.prepared.dockerfile,
            compiler=self._objects.compiler,
            engine=self._engine.description,
            smoke=done.smoke,
        )
        describe(
            self._engine,
            self._request.output / image.name,
            self._request.checkout,
            Described(image, facts, done.prepared.python, self._objects.objects),
        )
        layers = tuple(LayerSize(*layer) for layer in self._engine.layers(done.facts.id))
        return ImageResult(
            image=image,
            reference=reference,
            id=done.facts.id,
            size=done.facts.size,
            layers=layers,
            base=base.choice.label,
            substitute=base.choice.substitute,
            reason=base.choice.reason,
            objects=len(self._objects.objects),
            seconds=done.seconds,
            state="built" if done.built else "unchanged",
            kernels=kernels_of(image, self._kernels),
        )
