// A camera that turns round a target. Angles are radians, lengths metres; z is up.

const FIELD_OF_VIEW = 50 * Math.PI / 180; // vertical
const NEAR = 0.3, FAR = 3000;
const STEEPEST = 89.9 * Math.PI / 180;
const VIEWS = {
  oblique: { azimuth: -1.7, elevation: 0.72, distance: 78, target: [0, 4, 0] },
  top: { azimuth: -Math.PI / 2, elevation: STEEPEST, distance: 118, target: [0, 0, 0] },
  road: { azimuth: -1.65, elevation: 0.22, distance: 26, target: [0, 6, 0] },
};

const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const unit = (a) => a.map((value) => value / Math.hypot(...a));
const along = (a, step, direction) => a.map((value, axis) => value + step * direction[axis]);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

class Orbit {
  constructor(changed) {
    this.changed = changed;
    this.look("oblique");
  }

  look(view) {
    Object.assign(this, VIEWS[view], { target: [...VIEWS[view].target] });
    this.changed();
  }

  // Eye, and the directions that point right, up and forward on the screen.
  basis() {
    const cos = Math.cos(this.elevation);
    const back = [cos * Math.cos(this.azimuth), cos * Math.sin(this.azimuth), Math.sin(this.elevation)];
    const right = [-Math.sin(this.azimuth), Math.cos(this.azimuth), 0];
    return { eye: along(this.target, this.distance, back), right, up: cross(back, right), forward: back.map((v) => -v) };
  }

  // World -> clip space, column by column as WebGL wants it.
  matrix(aspect) {
    const { eye, right, up, forward } = this.basis();
    const focal = 1 / Math.tan(FIELD_OF_VIEW / 2);
    const depth = (FAR + NEAR) / (FAR - NEAR), shift = -2 * FAR * NEAR / (FAR - NEAR);
    const rows = [
      [...right.map((v) => v * focal / aspect), -dot(right, eye) * focal / aspect],
      [...up.map((v) => v * focal), -dot(up, eye) * focal],
      [...forward.map((v) => v * depth), -dot(forward, eye) * depth + shift],
      [...forward, -dot(forward, eye)],
    ];
    return new Float32Array([0, 1, 2, 3].flatMap((column) => rows.map((row) => row[column])));
  }

  // Direction through a point of the screen, x and y in [-1, 1].
  ray(x, y, aspect) {
    const { eye, right, up, forward } = this.basis();
    const reach = Math.tan(FIELD_OF_VIEW / 2);
    return { eye, direction: unit(along(along(forward, x * reach * aspect, right), y * reach, up)) };
  }

  turn(dx, dy) {
    this.azimuth -= dx * 0.006;
    this.elevation = clamp(this.elevation + dy * 0.006, -0.2, STEEPEST);
    this.changed();
  }

  // Move over the ground by pixels of a screen of the given height.
  pan(dx, dy, height) {
    const scale = 2 * this.distance * Math.tan(FIELD_OF_VIEW / 2) / height;
    const { right } = this.basis();
    const ahead = [-Math.cos(this.azimuth), -Math.sin(this.azimuth), 0];
    this.target = along(along(this.target, -dx * scale, right), dy * scale, ahead);
    this.changed();
  }

  zoom(factor) {
    this.distance = clamp(this.distance * factor, 2, 600);
    this.changed();
  }

  // Listen to mouse, pen and fingers.
  attach(canvas) {
    const pointers = new Map();
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      canvas.classList.add("dragging");
      pointers.set(event.pointerId, event);
    });
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => {
        pointers.delete(event.pointerId);
        canvas.classList.toggle("dragging", pointers.size > 0);
      });
    }
    canvas.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const dx = event.clientX - before.clientX, dy = event.clientY - before.clientY;
      const other = [...pointers.values()].find((pointer) => pointer.pointerId !== event.pointerId);
      pointers.set(event.pointerId, event);
      if (other) this.pinch(before, event, other, dx / 2, dy / 2, canvas.clientHeight);
      else if (event.buttons & 2 || event.shiftKey) this.pan(dx, dy, canvas.clientHeight);
      else this.turn(dx, dy);
    });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(clamp(event.deltaY, -200, 200) * 0.0012));
    }, { passive: false });
  }

  pinch(before, after, other, dx, dy, height) {
    const gap = (pointer) => Math.hypot(pointer.clientX - other.clientX, pointer.clientY - other.clientY);
    this.zoom(Math.max(gap(before), 1) / Math.max(gap(after), 1));
    this.pan(dx, dy, height);
  }
}
