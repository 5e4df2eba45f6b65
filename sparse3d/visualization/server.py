"""A 3D page that a server feeds (viser, extra `web`): for scenes too long for one file, and for predictions on demand.

The page in `web.py` opens without a server. This one asks for a frame when the time line comes to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.colors import to_rgb

from ..structures import Sample
from ..structures.boxes import EDGES
from .colors import BACKGROUND, POINT_MAPS, class_colors
from .draw import draw_cameras
from .layers import PointLayer
from .objects import Objects, box_lines, point_colors, read_ground_truth, read_points, read_predictions

POINT_SIZE = 0.06  # metres
LINE_WIDTH = 2.0  # pixels
WHITE = 1.0
GAMMA = 2.2  # viser takes the colours of lines, unlike those of points, for linear ones
VIEW_FROM = (-35.0, 0.0, 25.0)  # metres: behind the vehicle and above it


class Samples(Protocol):
    """Frames to show: a list of samples, or anything that makes them when they are asked for."""

    def __len__(self) -> int: ...
    def __getitem__(self, item: int) -> Sample: ...


class SceneServer:
    """Serve frames as a page with time line, score slider, colours and camera images.

    Args:
        samples: ``points``, ``gt``, ``pred``, ``layers``, ``images`` with ``cameras``, each of which may be absent.
        class_names: names in the order of the labels.
        port: where to serve, to this machine alone; where it is taken, the next free one.
        score_threshold: where the score slider starts.

    Raises:
        ModuleNotFoundError: without viser.
        ValueError: if there are no samples.
    """

    def __init__(
        self, samples: Samples, class_names: Sequence[str], port: int = 8080, score_threshold: float = 0.3
    ) -> None:
        try:
            import viser
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("serving a page needs viser: pip install 'sparse3d[web]'") from error
        if not len(samples):
            raise ValueError("SceneServer: there is no frame to show")
        self.samples, self.class_names = samples, tuple(class_names)
        self.colors = class_colors(class_names)
        self.server = viser.ViserServer(host="localhost", port=port, verbose=False)
        self._set_stage()
        self.sample = samples[0]
        self._add_controls(score_threshold)
        self._show_frame()

    @property
    def port(self) -> int:
        """Where the page is."""
        return self.server.get_port()

    def stop(self) -> None:
        """Stop serving."""
        self.server.stop()

    def _set_stage(self) -> None:
        scene, camera = self.server.scene, self.server.initial_camera
        scene.set_up_direction("+z")
        scene.set_background_image(np.full((1, 1, 3), np.round(255 * np.array(to_rgb(BACKGROUND))), np.uint8))
        camera.position, camera.look_at = VIEW_FROM, (0.0, 0.0, 0.0)
        self.server.gui.configure_theme(dark_mode=True)

    # -- controls ----------------------------------------------------------------------------------------------------

    def _add_controls(self, score_threshold: float) -> None:
        gui, last = self.server.gui, len(self.samples) - 1
        self.frame = gui.add_slider("Frame", 0, max(last, 1), 1, 0, disabled=last == 0)
        self.mode = gui.add_dropdown("Points", tuple(POINT_MAPS))
        self.score = gui.add_slider("Score at least", 0.0, 1.0, 0.01, score_threshold)
        self.pred = gui.add_checkbox("Predictions", True)
        self.gt = gui.add_checkbox("Ground truth", True)
        self.facts = gui.add_markdown("")
        self.images: Any = None
        self.switches: dict[str, Any] = {}  # name of a layer -> its checkbox
        self.shown_layers: list[Any] = []
        self.frame.on_update(lambda _: self._load_frame())
        self.mode.on_update(lambda _: self._show_points())
        for control in (self.score, self.pred, self.gt):
            control.on_update(lambda _: self._show_boxes())

    def _load_frame(self) -> None:
        self.sample = self.samples[int(self.frame.value)]
        self._show_frame()

    def _show_frame(self) -> None:
        self._show_points()
        self._show_layers()
        self._show_boxes()

    # -- scene -------------------------------------------------------------------------------------------------------

    def _show_points(self) -> None:
        points = read_points(self.sample.points) if "points" in self.sample else np.zeros((0, 3), np.float32)
        self.server.scene.add_point_cloud(
            "/points", points[:, :3], point_colors(points, self.mode.value), point_size=POINT_SIZE
        )

    def _show_layers(self) -> None:
        """Show this frame's layers that are switched on; the switch comes with the first frame that has the layer."""
        for handle in self.shown_layers:
            handle.remove()
        layers = self.sample.get("layers", ())
        for layer in layers:
            if layer.name not in self.switches:
                self.switches[layer.name] = self.server.gui.add_checkbox(layer.name, True)
                self.switches[layer.name].on_update(lambda _: self._show_layers())
        self.shown_layers = [self._add_layer(layer) for layer in layers if self.switches[layer.name].value]

    def _add_layer(self, layer: PointLayer) -> Any:
        color = tuple(round(255 * part) for part in to_rgb(layer.color))
        return self.server.scene.add_point_cloud(
            f"/layers/{layer.name}", layer.points, color, point_size=layer.size, point_shape="circle"
        )

    def _show_boxes(self) -> None:
        gt, pred = self._objects()
        for name, objects in (("/gt", gt), ("/pred", pred)):
            colors = np.full((len(objects), 3), WHITE) if name == "/gt" else self.colors[objects.labels]
            lines = box_lines(objects)
            per_line = np.broadcast_to(np.repeat(colors**GAMMA, len(EDGES) + 1, axis=0)[:, None], lines.shape)
            self.server.scene.add_line_segments(name, lines, per_line, thickness=LINE_WIDTH, thickness_units="screen")
        self.facts.content = f"{len(pred)} predictions, {len(gt)} objects"
        self._show_images()

    def _objects(self) -> tuple[Objects, Objects]:
        """Return ground truth and predictions that the controls let through."""
        gt = read_ground_truth(self.sample.get("gt") if self.gt.value else None, self.class_names)
        pred = read_predictions(self.sample.get("pred") if self.pred.value else None, self.class_names)
        return gt, pred.select(pred.scores >= self.score.value)

    def _show_images(self) -> None:
        if "images" not in self.sample:
            return
        pixels = [image.permute(1, 2, 0).numpy() for image in self.sample.images]
        shown = draw_cameras(
            pixels,
            self.sample.cameras,
            self.sample.get("gt") if self.gt.value else None,
            self.sample.get("pred") if self.pred.value else None,
            self.class_names,
            score_threshold=self.score.value,
        )
        if self.images is None:
            self.images = self.server.gui.add_image(shown, label="Cameras", format="jpeg")
        else:
            self.images.image = shown
