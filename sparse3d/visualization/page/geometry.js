// Boxes as the page draws them. A box is [x, y, z, l, w, h, yaw, vx, vy]; vx and vy are null where unknown.

const MIN_SPEED = 0.5; // m/s; slower objects get no arrow
const HEADING_REACH = 1.25; // the heading tick ends this many half lengths from the centre
const EDGES = [[0, 1], [1, 2], [2, 3], [3, 0], [4, 5], [5, 6], [6, 7], [7, 4], [0, 4], [1, 5], [2, 6], [3, 7]];
const FACES = [[4, 5, 6, 7], [0, 1, 5, 4], [2, 3, 7, 6], [1, 2, 6, 5], [0, 3, 7, 4]]; // all but the front
const FRONT = [0, 1, 2, 3];
const SIGNS = [[1, 1, 1], [1, -1, 1], [1, -1, -1], [1, 1, -1], [-1, 1, 1], [-1, -1, 1], [-1, -1, -1], [-1, 1, -1]];

function toWorld(box, [forward, left, up]) {
  const cos = Math.cos(box[6]), sin = Math.sin(box[6]);
  return [box[0] + cos * forward - sin * left, box[1] + sin * forward + cos * left, box[2] + up];
}

function boxCorners(box) {
  return SIGNS.map(([a, b, c]) => toWorld(box, [a * box[3] / 2, b * box[4] / 2, c * box[5] / 2]));
}

function boxLines(box) {
  const corners = boxCorners(box);
  const roof = box[5] / 2;
  const tick = [toWorld(box, [0, 0, roof]), toWorld(box, [HEADING_REACH * box[3] / 2, 0, roof])];
  return [...EDGES.map(([a, b]) => [corners[a], corners[b]]), tick];
}

function speedOf(box) {
  return box[7] === null || box[8] === null ? null : Math.hypot(box[7], box[8]);
}

function velocityLines(box) {
  const speed = speedOf(box);
  if (speed === null || speed < MIN_SPEED) return [];
  const [x, y, z] = box;
  const end = [x + box[7], y + box[8], z];
  const reach = Math.min(Math.max(0.3 * speed, 0.25), 1.2) / speed;
  const barb = (side) => [end, [end[0] - reach * (box[7] - side * box[8]), end[1] - reach * (box[8] + side * box[7]), z]];
  return [[[x, y, z], end], barb(0.5), barb(-0.5)];
}

function boxTriangles(box, faces) {
  const corners = boxCorners(box);
  return faces.flatMap(([a, b, c, d]) => [a, b, c, a, c, d].map((index) => corners[index]));
}

// Distance along the ray at which it enters the box, or null. Far boxes grow by `slack` radians to be easy to hit.
function enterBox(box, origin, direction, slack) {
  const cos = Math.cos(box[6]), sin = Math.sin(box[6]);
  const turn = ([x, y, z]) => [cos * x + sin * y, -sin * x + cos * y, z];
  const start = turn([origin[0] - box[0], origin[1] - box[1], origin[2] - box[2]]);
  const step = turn(direction);
  const grow = slack * Math.hypot(...start);
  let enter = 0, leave = Infinity;
  for (let axis = 0; axis < 3; axis++) {
    const half = box[3 + axis] / 2 + grow;
    const one = (-half - start[axis]) / step[axis], other = (half - start[axis]) / step[axis];
    enter = Math.max(enter, Math.min(one, other));
    leave = Math.min(leave, Math.max(one, other));
  }
  return enter <= leave ? enter : null;
}
