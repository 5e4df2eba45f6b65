// The camera images of a frame, with the boxes that the controls let through.

const IMAGE_NEAR = 0.1; // metres in front of a camera where edges are cut off

// (u d, v d, d) of a point, for a matrix by rows.
function toImage(matrix, [x, y, z]) {
  return [0, 1, 2].map((row) => matrix[4 * row] * x + matrix[4 * row + 1] * y + matrix[4 * row + 2] * z + matrix[4 * row + 3]);
}

// The pixels of an edge's two ends, or null where it lies behind the camera.
function edgeInImage(matrix, [start, end]) {
  let [a, b] = [toImage(matrix, start), toImage(matrix, end)];
  if (a[2] < IMAGE_NEAR && b[2] < IMAGE_NEAR) return null;
  const cut = (hidden, seen) => {
    const share = (IMAGE_NEAR - hidden[2]) / (seen[2] - hidden[2]);
    return hidden.map((value, axis) => value + share * (seen[axis] - value));
  };
  if (a[2] < IMAGE_NEAR) a = cut(a, b);
  if (b[2] < IMAGE_NEAR) b = cut(b, a);
  return [[a[0] / a[2], a[1] / a[2]], [b[0] / b[2], b[1] / b[2]]];
}

class CameraStrip {
  constructor(place) {
    this.place = place;
    this.views = [];
  }

  // Show the images of a frame; `drawn` is called when one has loaded.
  show(cameras, drawn) {
    this.views = cameras.map((camera) => ({ camera, image: new Image(), canvas: document.createElement("canvas") }));
    this.place.replaceChildren(...this.views.map(({ camera, canvas }) => {
      const figure = document.createElement("figure"), caption = document.createElement("figcaption");
      Object.assign(canvas, { width: camera.width, height: camera.height });
      caption.textContent = camera.name.replaceAll("_", " ").toLowerCase();
      figure.append(canvas, caption);
      return figure;
    }));
    for (const { camera, image } of this.views) {
      image.onload = drawn;
      image.src = camera.image;
    }
  }

  // Draw edges { start, end, color: [r, g, b, a], dash } over the images.
  draw(edges) {
    for (const { camera, image, canvas } of this.views) {
      const pen = canvas.getContext("2d");
      pen.clearRect(0, 0, canvas.width, canvas.height);
      if (image.complete) pen.drawImage(image, 0, 0, canvas.width, canvas.height);
      pen.lineWidth = 1.5;
      for (const { start, end, color, dash } of edges) {
        const pixels = edgeInImage(camera.matrix, [start, end]);
        if (!pixels) continue;
        pen.strokeStyle = `rgb(${color.slice(0, 3).map((value) => Math.round(255 * value)).join(" ")})`;
        pen.setLineDash(dash ? [4, 3] : []);
        pen.beginPath();
        pen.moveTo(...pixels[0]);
        pen.lineTo(...pixels[1]);
        pen.stroke();
      }
    }
  }
}
