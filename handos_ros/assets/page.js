// Plays a recording of hands: its picture, the meshes in 3D (WebGL 2), and plots over time.
// Metres in the camera's optical frame: x right, y down, z forward.
'use strict';

const recording = JSON.parse(document.getElementById('recording').textContent);
const frames = recording.frames;
const start_s = frames[0].stamp_s;
const FINGERS = ['thumb', 'index', 'middle', 'ring', 'little'];
const FINGER_COLOURS = ['#eb5757', '#f2a53c', '#4cbb70', '#409cff', '#a86ee6'];
const TRAIL_S = 1.0;
const WRIST = 0, ROOT = 9;
const element = (id) => document.getElementById(id);
const rgb = (side) => recording.colours[side];
const css = (side) => `rgb(${rgb(side).join(',')})`;
const label = (hand) => (hand.id >= 0 ? `#${hand.id} ${hand.side}` : hand.side);

function decode(text, Type) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Type(bytes.buffer);
}

// ---------------------------------------------------------------- geometry

const subtract = (a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) =>
  [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = (a) => { const n = Math.hypot(...a) || 1; return a.map((x) => x / n); };

function multiply(a, b) {  // 4x4, column-major
  const out = new Float32Array(16);
  for (let c = 0; c < 4; c++)
    for (let r = 0; r < 4; r++)
      for (let k = 0; k < 4; k++) out[4 * c + r] += a[4 * k + r] * b[4 * c + k];
  return out;
}

function lookAt(eye, target) {  // y points down in the optical frame
  const z = unit(subtract(eye, target)), x = unit(cross([0, -1, 0], z)), y = cross(z, x);
  return [x[0], y[0], z[0], 0, x[1], y[1], z[1], 0, x[2], y[2], z[2], 0,
          -dot(x, eye), -dot(y, eye), -dot(z, eye), 1];
}

function perspective(fovy_rad, aspect, near, far) {
  const f = 1 / Math.tan(fovy_rad / 2);
  return [f / aspect, 0, 0, 0, 0, f, 0, 0, 0, 0, (far + near) / (near - far), -1,
          0, 0, 2 * far * near / (near - far), 0];
}

// The bend of a finger: the sum of the angles between its bones, the palm's included.
function curl_deg(joints, finger) {
  const chain = [WRIST, ...[1, 2, 3, 4].map((part) => 4 * finger + part)].map((j) => joints[j]);
  const bones = chain.slice(1).map((joint, i) => unit(subtract(joint, chain[i])));
  let sum = 0;
  for (let i = 1; i < bones.length; i++)
    sum += Math.acos(Math.max(-1, Math.min(1, dot(bones[i - 1], bones[i]))));
  return sum * 180 / Math.PI;
}

// ---------------------------------------------------------------- the scene

const triangles = decode(recording.triangles, Uint16Array);
const mirrored = triangles.map((_, i) => triangles[i - i % 3 + 2 - i % 3]);  // a left hand's

function meshOf(hand) {
  const steps = decode(hand.vertices, Int16Array), root = hand.joints_m[ROOT];
  const positions = new Float32Array(steps.length), normals = new Float32Array(steps.length);
  for (let i = 0; i < steps.length; i++) positions[i] = steps[i] * recording.vertex_unit_m + root[i % 3];
  const faces = hand.side === 'left' ? mirrored : triangles;
  const at = (v) => positions.subarray(3 * v, 3 * v + 3);
  for (let f = 0; steps.length && f < faces.length; f += 3) {
    const [a, b, c] = [at(faces[f]), at(faces[f + 1]), at(faces[f + 2])];
    const n = cross(subtract(b, a), subtract(c, a));
    for (let k = 0; k < 3; k++)
      for (let d = 0; d < 3; d++) normals[3 * faces[f + k] + d] += n[d];
  }
  return { positions, normals, faces };
}

const VERTEX = `#version 300 es
in vec3 position; in vec3 normal; in vec2 at; uniform mat4 camera; out vec3 n; out vec2 uv;
void main() { gl_Position = camera * vec4(position, 1.0); n = normal; uv = at; }`;
const FRAGMENT = `#version 300 es
precision highp float;
in vec3 n; in vec2 uv; uniform vec4 colour; uniform sampler2D picture; uniform int mode; out vec4 o;
void main() {
  if (mode == 1) { o = texture(picture, uv) * vec4(vec3(0.75), 1.0); return; }
  if (mode == 2) { o = colour; return; }
  float light = 0.35 + 0.65 * abs(dot(normalize(n), normalize(vec3(-0.35, -0.6, -0.72))));
  o = vec4(colour.rgb * light, colour.a);
}`;

class Scene {
  constructor(canvas) {
    this.canvas = canvas;
    this.turn = { yaw: 0.35, pitch: 0.15, zoom: 1.2 };
    const depths = frames.flatMap((f) => f.hands.map((hand) => hand.joints_m[ROOT]));
    const middle = (k) => depths.map((p) => p[k]).sort((a, b) => a - b)[depths.length >> 1];
    this.target = depths.length ? [0, 0, middle(2)] : [0, 0, 0.5];
    const gl = canvas.getContext('webgl2', { antialias: true, preserveDrawingBuffer: true });
    this.gl = gl;
    if (!gl) return;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    ['position', 'normal', 'at'].forEach((name, i) => gl.bindAttribLocation(program, i, name));
    gl.linkProgram(program);
    gl.useProgram(program);
    this.uniform = (name) => gl.getUniformLocation(program, name);
    this.buffers = [0, 1, 2].map(() => gl.createBuffer());
    this.indices = gl.createBuffer();
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
    for (const axis of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T])
      gl.texParameteri(gl.TEXTURE_2D, axis, gl.CLAMP_TO_EDGE);
    gl.enable(gl.DEPTH_TEST);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
  }

  setPicture(image) {
    const gl = this.gl;
    this.pictured = true;
    if (gl) gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, image);
  }

  attribute(index, values, size) {
    const gl = this.gl;
    if (!values) { gl.disableVertexAttribArray(index); return; }
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[index]);
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.STREAM_DRAW);
    gl.enableVertexAttribArray(index);
    gl.vertexAttribPointer(index, size, gl.FLOAT, false, 0, 0);
  }

  shape(kind, mode, colour, positions, { normals, at, faces } = {}) {
    const gl = this.gl;
    gl.uniform1i(this.uniform('mode'), mode);
    gl.uniform4fv(this.uniform('colour'), colour);
    this.attribute(0, positions, 3);
    this.attribute(1, normals, 3);
    this.attribute(2, at, 2);
    if (!faces) { gl.drawArrays(kind, 0, positions.length / 3); return; }
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.indices);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, faces, gl.STREAM_DRAW);
    gl.drawElements(kind, faces.length, gl.UNSIGNED_SHORT, 0);
  }

  cameraMatrix() {
    const { yaw, pitch, zoom } = this.turn, t = this.target, d = t[2] * zoom;
    const eye = [t[0] - d * Math.sin(yaw) * Math.cos(pitch), t[1] - d * Math.sin(pitch),
                 t[2] - d * Math.cos(yaw) * Math.cos(pitch)];
    const k = recording.camera || { width: 4, height: 3, fy: 4 };
    const aspect = this.canvas.width / this.canvas.height, pictureAspect = k.width / k.height;
    const half = k.height / 2 / k.fy * Math.max(1, pictureAspect / aspect);  // all of it is seen
    return multiply(perspective(2 * Math.atan(half), aspect, 0.01, 30), lookAt(eye, t));
  }

  draw(index) {
    const gl = this.gl, canvas = this.canvas;
    if (!gl) return;
    fit(canvas);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0.06, 0.07, 0.085, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.uniformMatrix4fv(this.uniform('camera'), false, this.cameraMatrix());
    this.drawBackdrop();
    for (const hand of frames[index].hands) {
      const [r, g, b] = rgb(hand.side).map((v) => v / 255);
      const { positions, normals, faces } = meshOf(hand);
      if (positions.length)
        this.shape(gl.TRIANGLES, 0, [r, g, b, 1], positions, { normals, faces });
      const bones = recording.edges.flatMap(([a, c]) => [...hand.joints_m[a], ...hand.joints_m[c]]);
      if (!positions.length) this.shape(gl.LINES, 2, [1, 1, 1, 1], new Float32Array(bones));
      this.drawTrail(hand, index, [r, g, b, 0.9]);
    }
  }

  drawBackdrop() {
    const gl = this.gl, k = recording.camera, z = recording.backdrop_m;
    if (!k) return;
    const corner = (u, v) => [(u - k.cx) / k.fx * z, (v - k.cy) / k.fy * z, z];
    const corners = [[-0.5, -0.5], [k.width - 0.5, -0.5], [-0.5, k.height - 0.5],
                     [k.width - 0.5, k.height - 0.5]].map(([u, v]) => corner(u, v));
    if (this.pictured)
      this.shape(gl.TRIANGLE_STRIP, 1, [1, 1, 1, 1], new Float32Array(corners.flat()),
                 { at: new Float32Array([0, 0, 1, 0, 0, 1, 1, 1]) });
    const rays = [0, 1, 3, 2].flatMap((i) => [0, 0, 0, ...corners[i]]);
    this.shape(gl.LINES, 2, [0.6, 0.62, 0.68, 0.35], new Float32Array(rays));
  }

  drawTrail(hand, index, colour) {
    const path = [];
    for (let i = index; i >= 0 && frames[index].stamp_s - frames[i].stamp_s < TRAIL_S; i--) {
      const earlier = frames[i].hands.find((h) => h.id === hand.id && h.side === hand.side);
      if (!earlier) break;
      path.push(...earlier.joints_m[WRIST]);
    }
    if (path.length > 3) this.shape(this.gl.LINE_STRIP, 2, colour, new Float32Array(path));
  }
}

// ---------------------------------------------------------------- picture, table, plots

function fit(canvas) {  // as many pixels as the screen gives it
  const scale = window.devicePixelRatio || 1;
  const [w, h] = [canvas.clientWidth, canvas.clientHeight].map((n) => Math.max(1, Math.round(n * scale)));
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  return scale;
}

function drawPicture(canvas, image, frame) {
  const camera = recording.camera;
  const [w, h] = image ? [image.naturalWidth, image.naturalHeight] : [640, 480];
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  const pen = canvas.getContext('2d');
  pen.clearRect(0, 0, w, h);
  if (image) pen.drawImage(image, 0, 0);
  const scale = camera ? w / camera.width : 1;
  const place = (p) => [(p[0] + 0.5) * scale, (p[1] + 0.5) * scale];
  pen.lineCap = 'round';
  for (const hand of frame.hands) {
    recording.edges.forEach(([a, b], i) => {
      pen.strokeStyle = FINGER_COLOURS[Math.floor(i / 4)];
      pen.lineWidth = Math.max(2, w / 200);
      pen.beginPath();
      pen.moveTo(...place(hand.joints_px[a]));
      pen.lineTo(...place(hand.joints_px[b]));
      pen.stroke();
    });
    const [x, y] = place(hand.joints_px[WRIST]);
    pen.font = `600 ${Math.max(13, w / 38)}px system-ui, sans-serif`;
    pen.lineWidth = 3;
    pen.strokeStyle = '#000';
    pen.fillStyle = css(hand.side);
    const text = `${label(hand)} ${hand.distance_m.toFixed(2)} m`;
    pen.strokeText(text, x + 8, y + 4);
    pen.fillText(text, x + 8, y + 4);
  }
}

function fillTable(body, frame) {
  body.replaceChildren(...frame.hands.map((hand) => {
    const row = document.createElement('tr');
    for (const text of [label(hand), hand.score.toFixed(2), `${hand.distance_m.toFixed(3)} m`, hand.scale]) {
      const cell = document.createElement('td');
      cell.textContent = text;
      row.append(cell);
    }
    row.firstChild.style.color = css(hand.side);
    return row;
  }));
}

const key = (hand) => `${hand.id} ${hand.side}`;

// Series of one hand: [seconds, value] pairs with gaps where it is not seen.
function series(wanted, value) {
  return frames.map((frame) => {
    const hand = frame.hands.find((h) => key(h) === wanted);
    return [frame.stamp_s - start_s, hand ? value(hand) : null];
  });
}

class Plots {
  constructor(canvas) { this.canvas = canvas; }

  choose(wanted) {
    this.rows = [
      { title: 'distance to the camera [m]',
        lines: [{ name: '', colour: '#dfe3e8', points: series(wanted, (h) => h.distance_m) }] },
      { title: 'bend of each finger [deg]',
        lines: FINGERS.map((name, finger) => ({
          name, colour: FINGER_COLOURS[finger],
          points: series(wanted, (h) => curl_deg(h.joints_m, finger)) })) },
    ];
    for (const row of this.rows) {
      const values = row.lines.flatMap((l) => l.points.map((p) => p[1])).filter((v) => v !== null);
      const [low, high] = values.length
        ? values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]) : [0, 1];
      const margin = 0.08 * (high - low) || 0.05;
      row.range = [low - margin, high + margin];
    }
  }

  time(x) { return (x - 46) / Math.max(1, this.canvas.clientWidth - 56); }

  draw(index) {
    const canvas = this.canvas, scale = fit(canvas), pen = canvas.getContext('2d');
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    const w = canvas.clientWidth, h = canvas.clientHeight, rowHeight = h / this.rows.length;
    const length_s = Math.max(1e-3, frames.at(-1).stamp_s - start_s);
    const px = (t) => 46 + t / length_s * (w - 56);
    pen.clearRect(0, 0, w, h);
    pen.font = '12px system-ui, sans-serif';
    this.rows.forEach((row, r) => {
      const top = r * rowHeight + 22, bottom = (r + 1) * rowHeight - 8, [low, high] = row.range;
      const py = (v) => bottom - (v - low) / (high - low) * (bottom - top);
      pen.fillStyle = '#8d96a3';
      pen.fillText(row.title, 46, top - 8);
      let x = 46 + pen.measureText(row.title).width + 16;
      for (const value of [low, (low + high) / 2, high]) {
        pen.fillText(value.toFixed(high - low > 10 ? 0 : 2), 4, py(value) + 4);
        pen.strokeStyle = '#2a2f38';
        pen.lineWidth = 1;
        pen.strokeRect(46, py(value), w - 56, 0);
      }
      for (const line of row.lines) {
        pen.strokeStyle = pen.fillStyle = line.colour;
        pen.fillText(line.name, x, top - 8);
        x += pen.measureText(line.name).width + 10;
        pen.lineWidth = 1.5;
        pen.beginPath();
        let drawing = false;
        for (const [t, v] of line.points) {
          if (v === null) { drawing = false; continue; }
          if (drawing) pen.lineTo(px(t), py(v)); else { pen.moveTo(px(t), py(v)); pen.lineTo(px(t) + 1, py(v)); }
          drawing = true;
        }
        pen.stroke();
      }
    });
    pen.strokeStyle = '#ffffff90';
    pen.strokeRect(px(frames[index].stamp_s - start_s), 0, 0, h);
  }
}

// ---------------------------------------------------------------- playing

const scene = new Scene(element('scene'));
const plots = new Plots(element('plots'));
let shown = -1, playing = true, position_s = 0, last_ms = null, dirty = true;

function frameAt(seconds) {  // the last frame that is not later
  let low = 0, high = frames.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (frames[middle].stamp_s - start_s <= seconds) low = middle; else high = middle - 1;
  }
  return low;
}

function show(index) {
  shown = index;
  const frame = frames[index], draw = (image) => {
    if (shown !== index) return;
    if (image) scene.setPicture(image);
    drawPicture(element('picture'), image, frame);
    dirty = true;
  };
  if (frame.image) {
    const image = new Image();
    image.onload = () => draw(image);
    image.src = frame.image;
  } else draw(null);
  element('time').value = index;
  element('clock').textContent =
    `${(frame.stamp_s - start_s).toFixed(2)} s, ${index + 1}/${frames.length}, ${frame.age_ms.toFixed(0)} ms old`;
  fillTable(element('hands'), frame);
  dirty = true;
}

function setPlaying(on) {
  playing = on;
  element('play').textContent = on ? 'Pause' : 'Play';
}

function jump(index) {
  setPlaying(false);
  index = Math.max(0, Math.min(frames.length - 1, index));
  position_s = frames[index].stamp_s - start_s;
  show(index);
}

function tick(now_ms) {
  if (playing && last_ms !== null) {
    position_s += (now_ms - last_ms) / 1000 * Number(element('speed').value);
    if (position_s > frames.at(-1).stamp_s - start_s + 0.5) position_s = 0;
  }
  last_ms = now_ms;
  const index = frameAt(position_s);
  if (index !== shown) show(index);
  if (dirty) { scene.draw(shown); plots.draw(shown); dirty = false; }
  requestAnimationFrame(tick);
}

function listen() {
  element('play').onclick = () => setPlaying(!playing);
  element('time').oninput = (event) => jump(Number(event.target.value));
  element('plotted').onchange = (event) => { plots.choose(event.target.value); dirty = true; };
  element('home').onclick = () => { Object.assign(scene.turn, { yaw: 0, pitch: 0, zoom: 1 }); dirty = true; };
  window.onresize = () => { dirty = true; };
  window.onkeydown = (event) => {
    if (event.target.matches('select, input')) return;
    if (event.key === ' ') { setPlaying(!playing); event.preventDefault(); }
    if (event.key === 'ArrowLeft') jump(shown - 1);
    if (event.key === 'ArrowRight') jump(shown + 1);
  };
  const canvas = element('scene'), fingers = new Map();
  const spread = () => { const [a, b] = [...fingers.values()]; return Math.hypot(a[0] - b[0], a[1] - b[1]); };
  const zoom = (factor) => { scene.turn.zoom = Math.max(0.2, Math.min(8, scene.turn.zoom * factor)); dirty = true; };
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
  };
  canvas.onpointermove = (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const was = fingers.size === 2 ? spread() : 0;
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (fingers.size === 2) { zoom(was / (spread() || 1)); return; }
    scene.turn.yaw += (event.clientX - before[0]) * 0.008;
    scene.turn.pitch = Math.max(-1.4, Math.min(1.4, scene.turn.pitch + (event.clientY - before[1]) * 0.008));
    dirty = true;
  };
  canvas.onpointerup = canvas.onpointercancel = (event) => fingers.delete(event.pointerId);
  canvas.addEventListener('wheel', (event) => { zoom(Math.exp(event.deltaY * 0.001)); event.preventDefault(); },
                          { passive: false });
  const chart = element('plots');
  const seek = (event) => {
    const length_s = frames.at(-1).stamp_s - start_s;
    jump(frameAt(plots.time(event.offsetX) * length_s + 1e-9));
  };
  chart.onpointerdown = seek;
  chart.onpointermove = (event) => { if (event.buttons) seek(event); };
}

function begin() {
  const counts = new Map();
  for (const frame of frames) for (const hand of frame.hands) counts.set(key(hand), (counts.get(key(hand)) || 0) + 1);
  const longest = [...counts].sort((a, b) => b[1] - a[1]);
  for (const [name, count] of longest) {
    const [id, side] = name.split(' ');
    element('plotted').add(new Option(`${label({ id: Number(id), side })} (${count} frames)`, name));
  }
  plots.choose(longest.length ? longest[0][0] : '');
  document.title = `HandOS: ${recording.title}`;
  element('title').textContent = recording.title;
  const seconds = frames.at(-1).stamp_s - start_s;
  element('facts').textContent =
    `${frames.length} frames in ${seconds.toFixed(1)} s, model ${recording.model}` +
    (scene.gl ? '' : '; this browser has no WebGL 2, so no 3D view');
  element('time').max = frames.length - 1;
  listen();
  requestAnimationFrame(tick);
}

begin();
