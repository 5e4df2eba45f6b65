// The page: what is shown, the controls, and the facts of the box under the pointer.

const RING_STEP = 20, RINGS = 5; // metres, count
const PLAY_STEP = 500; // milliseconds a frame, nuScenes' own pace
const HIT_SLACK = 0.004; // radians a box is grown by for the pointer
const NO_CLASS = "no class";
const WHITE = [1, 1, 1];

const element = (id) => document.getElementById(id);
const scene = JSON.parse(element("data").textContent);
const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const colorOf = (hex) => [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16) / 255);
const maps = Object.fromEntries(Object.entries(scene.maps).map(([name, text]) => [name, bytesOf(text)]));
const classColors = scene.classes.map(({ color }) => colorOf(color));
const state = { frame: 0, mode: "height", size: 0.09, pred: true, gt: true, velocity: true, score: scene.score, hidden: new Set(), hiddenLayers: new Set(), hover: [] };

let renderer, orbit, strip, player = null, waiting = false;

function start() {
  renderer = new Renderer(element("view"), maps);
  orbit = new Orbit(redraw);
  strip = new CameraStrip(element("cameras"));
  orbit.attach(element("view"));
  buildClasses();
  buildLayers();
  buildRings();
  connectControls();
  showMode();
  showFrame(0);
  addEventListener("resize", redraw);
}

// -- drawing ----------------------------------------------------------------------------------------------------------

function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    const matrix = orbit.matrix(renderer.aspect);
    renderer.draw(matrix, { mode: state.mode, size: state.size, heights: scene.heights });
    placeRings(matrix);
  });
}

function showFrame(index) {
  state.frame = clamp(index, 0, scene.frames.length - 1);
  state.hover = [];
  const frame = scene.frames[state.frame];
  renderer.setPoints(bytesOf(frame.points), frame.step);
  element("frame").value = state.frame;
  element("frame-name").textContent = `${state.frame + 1} / ${scene.frames.length}   ${frame.name}`;
  strip.show(frame.cameras, showBoxes);
  showLayers();
  showBoxes();
}

function showLayers() {
  const { layers } = scene.frames[state.frame];
  const shown = layers.filter(({ name }) => !state.hiddenLayers.has(name));
  renderer.setLayers(shown.map(({ points, step, color, size }) => ({ bytes: bytesOf(points), step, color: colorOf(color), size })));
  for (const row of element("layers").children) {
    const found = layers.find(({ name }) => name === row.dataset.name);
    row.querySelector("output").textContent = (found ? found.count : 0).toLocaleString("en");
  }
  redraw();
}

// Ground truth and predictions that the controls let through: { kind, box, label, score }.
function shownObjects() {
  const frame = scene.frames[state.frame];
  const list = (kind) => frame[kind].boxes.map((box, index) =>
    ({ kind, index, box, label: frame[kind].labels[index], score: frame[kind].scores[index] }));
  const shown = [...(state.gt ? list("gt") : []), ...(state.pred ? list("pred") : [])];
  return shown.filter(({ kind, label, score }) => !state.hidden.has(label) && (kind === "gt" || score >= state.score));
}

function showBoxes() {
  const objects = shownObjects();
  const found = objects.filter(({ kind }) => kind === "pred");
  const edges = objects.flatMap(objectLines);
  renderer.setLines([...groundLines(), ...edges]);
  strip.draw(edges);
  renderer.setFaces(found.flatMap(objectFaces));
  showCounts(found, objects.length - found.length);
  redraw();
}

function objectLines({ kind, index, box, label }) {
  const hovered = state.hover.some((other) => other.kind === kind && other.index === index);
  const color = kind === "gt" ? WHITE : classColors[label];
  const style = kind === "gt" ? { width: 1.3, dash: 7 } : { width: 2, dash: 0 };
  if (hovered) Object.assign(style, { width: 3.5, dash: 0 });
  const arrow = state.velocity ? velocityLines(box) : [];
  return [
    ...boxLines(box).map(([start, end]) => ({ start, end, color: [...color, 1], ...style })),
    ...arrow.map(([start, end]) => ({ start, end, color: [...color, 0.85], width: style.width, dash: 0 })),
  ];
}

function objectFaces({ box, label }) {
  const face = (faces, alpha) => boxTriangles(box, faces).map((position) => ({ position, color: [...classColors[label], alpha] }));
  return [...face(FACES, 0.1), ...face([FRONT], 0.42)];
}

function circle(radius, z) {
  const point = (step) => [radius * Math.cos(step * Math.PI / 60), radius * Math.sin(step * Math.PI / 60), z];
  return Array.from({ length: 120 }, (_, step) => [point(step), point(step + 1)]);
}

// Range rings on the ground, and the sensor's axes: x red, y green, z blue.
function groundLines() {
  const rings = Array.from({ length: RINGS }, (_, ring) => circle((ring + 1) * RING_STEP, scene.ground)).flat();
  const axes = [[[3, 0, 0], colorOf("#ff5a4f")], [[0, 3, 0], colorOf("#3fb950")], [[0, 0, 3], colorOf("#4d8bff")]];
  return [
    ...rings.map(([start, end]) => ({ start, end, color: [0.55, 0.58, 0.62, 0.4], width: 1, dash: 0 })),
    ...axes.map(([end, color]) => ({ start: [0, 0, 0], end, color: [...color, 1], width: 3, dash: 0 })),
  ];
}

function buildRings() {
  for (let ring = 1; ring <= RINGS; ring++) {
    const label = document.createElement("span");
    label.textContent = `${ring * RING_STEP} m`;
    element("rings").append(label);
  }
}

function placeRings(matrix) {
  [...element("rings").children].forEach((label, ring) => {
    const side = (ring + 1) * RING_STEP * Math.SQRT1_2;
    const [x, y, , w] = [0, 1, 2, 3].map((row) =>
      matrix[row] * side - matrix[4 + row] * side + matrix[8 + row] * scene.ground + matrix[12 + row]);
    label.hidden = w < NEAR;
    label.style.left = `${(x / w + 1) / 2 * innerWidth}px`;
    label.style.top = `${(1 - y / w) / 2 * innerHeight}px`;
  });
}

// -- controls ---------------------------------------------------------------------------------------------------------

function connectControls() {
  element("images").addEventListener("change", (event) => { element("cameras").hidden = !event.target.checked; });
  element("images-row").hidden = scene.frames.every(({ cameras }) => cameras.length === 0);
  for (const name of ["pred", "gt", "velocity"]) {
    element(name).addEventListener("change", (event) => { state[name] = event.target.checked; showBoxes(); });
  }
  element("score").value = state.score;
  element("score").addEventListener("input", (event) => { state.score = Number(event.target.value); showBoxes(); });
  element("size").addEventListener("input", (event) => { state.size = Number(event.target.value); redraw(); });
  element("modes").addEventListener("change", (event) => { state.mode = event.target.value; showMode(); redraw(); });
  element("oblique").addEventListener("click", () => orbit.look("oblique"));
  element("top").addEventListener("click", () => orbit.look("top"));
  element("low-view").addEventListener("click", () => orbit.look("road"));
  element("view").addEventListener("pointermove", showFacts);
  element("view").addEventListener("pointerleave", () => hover([]));
  connectFrames();
}

function connectFrames() {
  if (scene.frames.length < 2) return;
  element("frames").hidden = false;
  element("frame").max = scene.frames.length - 1;
  element("frame").addEventListener("input", (event) => showFrame(Number(event.target.value)));
  element("previous").addEventListener("click", () => showFrame(state.frame - 1));
  element("next").addEventListener("click", () => showFrame(state.frame + 1));
  element("play").addEventListener("click", play);
  addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step && event.target.tagName !== "INPUT") showFrame(state.frame + step);
  });
}

// Play the time line from here, round and round, or stop.
function play() {
  element("play").setAttribute("aria-pressed", String(player === null));
  if (player !== null) {
    clearInterval(player);
    player = null;
  } else {
    player = setInterval(() => showFrame((state.frame + 1) % scene.frames.length), PLAY_STEP);
  }
}

function buildClasses() {
  scene.classes.forEach(({ name, color }, label) => {
    const button = document.createElement("button"), swatch = document.createElement("i"), text = document.createElement("span");
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    Object.assign(swatch.style, { borderColor: color, background: `${color}40` });
    text.textContent = name.replaceAll("_", " ");
    button.append(swatch, text, document.createElement("b"));
    button.addEventListener("click", () => {
      if (!state.hidden.delete(label)) state.hidden.add(label);
      button.setAttribute("aria-pressed", String(!state.hidden.has(label)));
      showBoxes();
    });
    element("classes").append(button);
  });
}

// A row for each layer of any frame.
function buildLayers() {
  const layers = new Map(scene.frames.flatMap((frame) => frame.layers.map((layer) => [layer.name, layer])));
  element("layers-title").hidden = layers.size === 0;
  for (const { name, color } of layers.values()) {
    const row = document.createElement("label"), box = document.createElement("input");
    const swatch = document.createElement("i"), text = document.createElement("span");
    row.className = "row";
    row.dataset.name = text.textContent = name;
    Object.assign(box, { type: "checkbox", checked: true });
    swatch.style.background = color;
    box.addEventListener("change", () => {
      if (box.checked) state.hiddenLayers.delete(name);
      else state.hiddenLayers.add(name);
      showLayers();
    });
    row.append(box, swatch, text, document.createElement("output"));
    element("layers").append(row);
  }
}

function showCounts(found, truth) {
  const frame = scene.frames[state.frame];
  element("facts").textContent = `${frame.count.toLocaleString("en")} points`;
  element("pred-count").textContent = `${found.length} of ${frame.pred.boxes.length}`;
  element("gt-count").textContent = `${truth} of ${frame.gt.boxes.length}`;
  element("score-value").textContent = state.score.toFixed(2);
  [...element("classes").children].forEach((button, label) => {
    button.lastChild.textContent = found.filter((object) => object.label === label).length || "";
  });
}

function showMode() {
  element("bar").style.visibility = state.mode === "none" ? "hidden" : "visible";
  if (state.mode === "none") return;
  const pen = element("ramp").getContext("2d"), pixels = pen.createImageData(256, 1);
  for (let level = 0; level < 256; level++) {
    pixels.data.set([...maps[state.mode].subarray(3 * level, 3 * level + 3), 255], 4 * level);
  }
  pen.putImageData(pixels, 0, 0);
  const [low, high] = {
    height: scene.heights.map((value) => `${value.toFixed(1)} m`),
    intensity: scene.intensities.map((value) => value.toFixed(value < 10 ? 2 : 0)),
    time: scene.lags.map((value) => `${value.toFixed(2)} s`),
  }[state.mode];
  element("low").textContent = low;
  element("high").textContent = high;
}

// -- facts ------------------------------------------------------------------------------------------------------------

// The nearest prediction and the nearest ground truth under the pointer.
function objectsUnder(event) {
  const x = event.clientX / innerWidth * 2 - 1, y = 1 - event.clientY / innerHeight * 2;
  const { eye, direction } = orbit.ray(x, y, renderer.aspect);
  const hits = shownObjects()
    .map((object) => ({ ...object, distance: enterBox(object.box, eye, direction, HIT_SLACK) }))
    .filter(({ distance }) => distance !== null)
    .sort((a, b) => a.distance - b.distance);
  return ["pred", "gt"].map((wanted) => hits.find(({ kind }) => kind === wanted)).filter(Boolean);
}

function showFacts(event) {
  const found = event.buttons ? [] : objectsUnder(event);
  hover(found);
  const tip = element("tip");
  tip.replaceChildren(...found.map(describe));
  tip.style.left = `${Math.min(event.clientX + 16, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.min(event.clientY + 16, innerHeight - tip.offsetHeight - 8)}px`;
}

function hover(found) {
  const same = (a, b) => a && a.kind === b.kind && a.index === b.index;
  element("tip").hidden = found.length === 0;
  if (found.length === state.hover.length && found.every((object, place) => same(state.hover[place], object))) return;
  state.hover = found;
  showBoxes();
}

function describe({ kind, box, label, score }) {
  const block = document.createElement("div"), head = document.createElement("b"), speed = speedOf(box);
  head.textContent = label < 0 ? NO_CLASS : scene.classes[label].name.replaceAll("_", " ");
  if (kind === "pred") head.style.color = scene.classes[label].color;
  const facts = [
    kind === "gt" ? "  ground truth" : `  score ${score.toFixed(2)}`,
    `\n${box[3].toFixed(2)} × ${box[4].toFixed(2)} × ${box[5].toFixed(2)} m`,
    `\n${speed === null ? "speed unknown" : `${speed.toFixed(1)} m/s`}, ${Math.hypot(box[0], box[1]).toFixed(1)} m away`,
  ];
  block.append(head, ...facts);
  return block;
}

try {
  start();
} catch (error) {
  element("message").textContent = error.message;
  element("message").hidden = false;
  throw error;
}
