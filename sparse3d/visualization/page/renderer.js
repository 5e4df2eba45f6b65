// WebGL 2: points, lines some pixels wide, and translucent faces.

const POINT_BYTES = 8; // int16 x, y, z in steps; uint8 intensity, uint8 time
const LINE_FLOATS = 12; // start xyz, end xyz, colour rgba, width, dash (pixels; dash 0: solid)
const FACE_FLOATS = 7; // xyz, colour rgba
const MODES = ["height", "intensity", "time"]; // how points are coloured; layers have a colour of their own

const POINT_SHADER = `#version 300 es
uniform mat4 u_matrix;
uniform float u_step, u_scale, u_dot;
uniform vec2 u_heights;
uniform vec3 u_color;
uniform int u_mode; // -1: u_color
uniform sampler2D u_maps;
layout(location = 0) in vec3 a_position;
layout(location = 1) in vec2 a_shade;
out vec3 v_color;
void main() {
  vec3 position = a_position * u_step;
  gl_Position = u_matrix * vec4(position, 1.0);
  gl_PointSize = clamp(u_scale / gl_Position.w, u_dot, 12.0 * u_dot);
  if (u_mode < 0) {
    v_color = u_color;
    return;
  }
  float height = (position.z - u_heights.x) / max(u_heights.y - u_heights.x, 1e-6);
  float level = u_mode == 0 ? clamp(height, 0.0, 1.0) : u_mode == 1 ? a_shade.x : a_shade.y;
  v_color = texture(u_maps, vec2((level * 255.0 + 0.5) / 256.0, (float(u_mode) + 0.5) / 3.0)).rgb;
}`;
const POINT_PIXEL = `#version 300 es
precision mediump float;
in vec3 v_color;
out vec4 color;
void main() {
  if (length(gl_PointCoord - 0.5) > 0.5) discard;
  color = vec4(v_color, 1.0);
}`;

// A line is a quad. Its ends are cut at the near plane before they are divided by w, and the distance along it is
// measured on the screen: v_along / v_w undoes the perspective of the interpolation, so dashes have one length.
const LINE_SHADER = `#version 300 es
uniform mat4 u_matrix;
uniform vec2 u_screen;
layout(location = 0) in vec2 a_corner;
layout(location = 1) in vec3 a_start;
layout(location = 2) in vec3 a_end;
layout(location = 3) in vec4 a_color;
layout(location = 4) in vec2 a_style;
out vec4 v_color;
out float v_along, v_w, v_dash;
const float NEAR = 0.3;
void main() {
  vec4 start = u_matrix * vec4(a_start, 1.0), end = u_matrix * vec4(a_end, 1.0);
  v_color = a_color;
  v_dash = a_style.y;
  v_along = 0.0;
  v_w = 1.0;
  gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
  if (start.w < NEAR && end.w < NEAR) return;
  vec4 cut = mix(start, end, (NEAR - start.w) / (end.w == start.w ? 1.0 : end.w - start.w));
  if (start.w < NEAR) start = cut;
  if (end.w < NEAR) end = cut;
  vec2 run = (end.xy / end.w - start.xy / start.w) * u_screen * 0.5;
  float span = length(run);
  vec2 side = span > 0.0 ? vec2(-run.y, run.x) / span : vec2(0.0, 1.0);
  vec4 here = a_corner.x < 0.5 ? start : end;
  here.xy += side * a_corner.y * a_style.x / u_screen * here.w;
  v_along = a_corner.x * span * here.w;
  v_w = here.w;
  gl_Position = here;
}`;
const LINE_PIXEL = `#version 300 es
precision highp float;
in vec4 v_color;
in float v_along, v_w, v_dash;
out vec4 color;
void main() {
  if (v_dash > 0.0 && fract(v_along / v_w / v_dash) > 0.6) discard;
  color = v_color;
}`;

const FACE_SHADER = `#version 300 es
uniform mat4 u_matrix;
layout(location = 0) in vec3 a_position;
layout(location = 1) in vec4 a_color;
out vec4 v_color;
void main() {
  gl_Position = u_matrix * vec4(a_position, 1.0);
  v_color = a_color;
}`;
const FACE_PIXEL = `#version 300 es
precision mediump float;
in vec4 v_color;
out vec4 color;
void main() { color = v_color; }`;

function buildProgram(gl, vertex, fragment) {
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
  const at = (name) => gl.getUniformLocation(program, name);
  return { program, at };
}

// A vertex array over one buffer; fields are [location, size, type, normalised, offset].
function buildArray(gl, stride, fields, divisor) {
  const array = gl.createVertexArray(), buffer = gl.createBuffer();
  gl.bindVertexArray(array);
  gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
  for (const [location, size, type, normalised, offset] of fields) {
    gl.enableVertexAttribArray(location);
    gl.vertexAttribPointer(location, size, type, normalised, stride, offset);
    gl.vertexAttribDivisor(location, divisor);
  }
  return { array, buffer, count: 0 };
}

class Renderer {
  constructor(canvas, maps) {
    this.canvas = canvas;
    const gl = this.gl = canvas.getContext("webgl2", { antialias: true, preserveDrawingBuffer: true });
    if (!gl) throw new Error("This page needs a browser with WebGL 2.");
    this.programs = {
      points: buildProgram(gl, POINT_SHADER, POINT_PIXEL),
      lines: buildProgram(gl, LINE_SHADER, LINE_PIXEL),
      faces: buildProgram(gl, FACE_SHADER, FACE_PIXEL),
    };
    const float = (location, size, offset) => [location, size, gl.FLOAT, false, 4 * offset];
    this.points = this.buildPoints();
    this.layers = [];
    this.faces = buildArray(gl, 4 * FACE_FLOATS, [float(0, 3, 0), float(1, 4, 3)], 0);
    const fields = [float(1, 3, 0), float(2, 3, 3), float(3, 4, 6), float(4, 2, 10)];
    this.lines = buildArray(gl, 4 * LINE_FLOATS, fields, 1);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([0, -1, 0, 1, 1, -1, 1, 1]), gl.STATIC_DRAW);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 2, gl.FLOAT, false, 0, 0);
    this.uploadMaps(maps);
    gl.enable(gl.DEPTH_TEST);
    gl.depthFunc(gl.LEQUAL);
    gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
    gl.clearColor(13 / 255, 17 / 255, 23 / 255, 1);
  }

  uploadMaps(maps) {
    const gl = this.gl;
    const texels = new Uint8Array(MODES.flatMap((mode) => [...maps[mode]]));
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB8, 256, MODES.length, 0, gl.RGB, gl.UNSIGNED_BYTE, texels);
    for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
    for (const name of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, name, gl.CLAMP_TO_EDGE);
  }

  upload(target, data, count) {
    this.gl.bindBuffer(this.gl.ARRAY_BUFFER, target.buffer);
    this.gl.bufferData(this.gl.ARRAY_BUFFER, data, this.gl.DYNAMIC_DRAW);
    target.count = count;
  }

  buildPoints() {
    const gl = this.gl;
    return buildArray(gl, POINT_BYTES, [[0, 3, gl.SHORT, false, 0], [1, 2, gl.UNSIGNED_BYTE, true, 6]], 0);
  }

  setPoints(bytes, step) {
    this.points.step = step;
    this.upload(this.points, bytes, bytes.length / POINT_BYTES);
  }

  // Layers { bytes, step, color: [r, g, b], size in metres }; their arrays are used again.
  setLayers(layers) {
    while (this.layers.length < layers.length) this.layers.push(this.buildPoints());
    this.layers.forEach((target, place) => {
      const { bytes, ...style } = layers[place] ?? { bytes: new Uint8Array() };
      Object.assign(target, style);
      this.upload(target, bytes, bytes.length / POINT_BYTES);
    });
  }

  setLines(lines) {
    const data = new Float32Array(lines.flatMap(({ start, end, color, width, dash }) =>
      [...start, ...end, ...color, width * devicePixelRatio, dash * devicePixelRatio]));
    this.upload(this.lines, data, lines.length);
  }

  setFaces(corners) {
    const data = new Float32Array(corners.flatMap(({ position, color }) => [...position, ...color]));
    this.upload(this.faces, data, corners.length);
  }

  get aspect() {
    return this.canvas.clientWidth / Math.max(this.canvas.clientHeight, 1);
  }

  draw(matrix, { mode, size, heights }) {
    const { gl, canvas } = this;
    const width = Math.round(canvas.clientWidth * devicePixelRatio), height = Math.round(canvas.clientHeight * devicePixelRatio);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    gl.viewport(0, 0, width, height);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const scale = height / (2 * Math.tan(FIELD_OF_VIEW / 2)); // pixels of a metre at a depth of one
    if (mode !== "none") this.drawPoints(this.points, matrix, { mode: MODES.indexOf(mode), scale: size * scale, heights });
    for (const layer of this.layers) {
      if (layer.count) this.drawPoints(layer, matrix, { mode: -1, scale: layer.size * scale, color: layer.color });
    }
    gl.enable(gl.BLEND);
    gl.depthMask(false);
    this.use("faces", this.faces, matrix);
    gl.drawArrays(gl.TRIANGLES, 0, this.faces.count);
    gl.depthMask(true);
    const at = this.use("lines", this.lines, matrix);
    gl.uniform2f(at("u_screen"), width, height);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, this.lines.count);
    gl.disable(gl.BLEND);
  }

  drawPoints(target, matrix, { mode, scale, heights = [0, 1], color = [1, 1, 1] }) {
    const gl = this.gl, at = this.use("points", target, matrix);
    gl.uniform1f(at("u_step"), target.step);
    gl.uniform1f(at("u_scale"), scale);
    gl.uniform1f(at("u_dot"), 1.4 * devicePixelRatio);
    gl.uniform2f(at("u_heights"), ...heights);
    gl.uniform3f(at("u_color"), ...color);
    gl.uniform1i(at("u_mode"), mode);
    gl.drawArrays(gl.POINTS, 0, target.count);
  }

  use(name, target, matrix) {
    const { program, at } = this.programs[name];
    this.gl.useProgram(program);
    this.gl.bindVertexArray(target.array);
    this.gl.uniformMatrix4fv(at("u_matrix"), false, matrix);
    return at;
  }
}
