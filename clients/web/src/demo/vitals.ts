/** The live measurements: one figure and one sparkline each. */
import type { AvatarSession } from "../lib";
import { element } from "./dom";

const SAMPLE_MS = 250;
/** Samples in a graph: half a minute, or the last utterances. */
const HISTORY = 120;
const UTTERANCES = 16;
/** The newest value is a dot of this radius; the line keeps so far from the edges. */
const DOT = 2;

interface VitalSpec {
  label: string;
  unit: string;
  explanation: string;
  /** Upper end of the graph, in the vital's unit; larger values stretch it. */
  scale: number;
  tone: "warm" | "cool";
  history: number;
}

const SPECS = {
  firstFrame: {
    label: "First frame",
    unit: "ms",
    explanation: "From the first sound of an utterance to its first frame on the screen",
    scale: 1000,
    tone: "warm",
    history: UTTERANCES,
  },
  roundTrip: {
    label: "Round trip",
    unit: "ms",
    explanation: "From this page to the server and back, measured around speech",
    scale: 100,
    tone: "cool",
    history: HISTORY,
  },
  fps: {
    label: "Frame rate",
    unit: "fps",
    explanation: "Frames drawn in the last second",
    scale: 30,
    tone: "warm",
    history: HISTORY,
  },
  skew: {
    label: "Lip sync",
    unit: "ms",
    explanation: "Distance between picture and sound, 95th percentile of recent speech",
    scale: 80,
    tone: "cool",
    history: HISTORY,
  },
  buffer: {
    label: "Buffer",
    unit: "ms",
    explanation: "Frames waiting for their moment",
    scale: 600,
    tone: "warm",
    history: HISTORY,
  },
  dropped: {
    label: "Dropped",
    unit: "frames",
    explanation: "Frames that came too late, here or at the server",
    scale: 10,
    tone: "cool",
    history: HISTORY,
  },
} as const satisfies Record<string, VitalSpec>;

type VitalName = keyof typeof SPECS;

class Vital {
  readonly root: HTMLElement;
  readonly #value = element("b", {}, "–");
  readonly #graph = element("canvas", { class: "vital-graph", "aria-hidden": "true" });
  readonly #history: (number | null)[] = [];

  constructor(readonly spec: VitalSpec) {
    this.root = element(
      "div",
      { class: `vital vital-${spec.tone}`, title: spec.explanation },
      element("p", { class: "vital-label" }, spec.label),
      element("p", { class: "vital-value" }, this.#value, element("span", {}, ` ${spec.unit}`)),
      this.#graph,
    );
  }

  push(value: number | null): void {
    this.#history.push(value);
    if (this.#history.length > this.spec.history) this.#history.shift();
    this.#value.textContent = value === null ? "–" : String(Math.round(value));
    this.#draw();
  }

  #draw(): void {
    const { clientWidth: width, clientHeight: height } = this.#graph;
    const context = this.#graph.getContext("2d");
    if (!context || width === 0) return;
    const ratio = window.devicePixelRatio || 1;
    this.#graph.width = Math.round(width * ratio);
    this.#graph.height = Math.round(height * ratio);
    context.scale(ratio, ratio);
    const top = Math.max(this.spec.scale, ...this.#history.map((value) => value ?? 0));
    const x = (i: number): number =>
      width - DOT - ((this.#history.length - 1 - i) * width) / this.spec.history;
    const y = (value: number): number => height - DOT - (value / top) * (height - 2 * DOT);
    const color = getComputedStyle(this.#graph).color;
    context.strokeStyle = color;
    context.lineWidth = 1.5;
    context.lineJoin = "round";
    const line = new Path2D();
    let from: number | null = null;
    let to = 0;
    let last = 0;
    for (const [i, value] of this.#history.entries()) {
      if (value === null) continue;
      if (from === null) line.moveTo(x(i), y(value));
      else line.lineTo(x(i), y(value));
      from ??= x(i);
      to = x(i);
      last = y(value);
    }
    if (from === null) return;
    context.stroke(line);
    context.fillStyle = color;
    context.beginPath();
    context.arc(to, last, DOT, 0, 2 * Math.PI);
    context.fill();
    line.lineTo(to, height);
    line.lineTo(from, height);
    const fade = context.createLinearGradient(0, 0, 0, height);
    fade.addColorStop(0, color);
    fade.addColorStop(1, "transparent");
    context.globalAlpha = 0.22;
    context.fillStyle = fade;
    context.fill(line);
  }
}

export class Vitals {
  readonly #vitals: Record<VitalName, Vital>;

  constructor(host: HTMLElement, session: AvatarSession) {
    this.#vitals = {
      firstFrame: new Vital(SPECS.firstFrame),
      roundTrip: new Vital(SPECS.roundTrip),
      fps: new Vital(SPECS.fps),
      skew: new Vital(SPECS.skew),
      buffer: new Vital(SPECS.buffer),
      dropped: new Vital(SPECS.dropped),
    };
    host.append(...Object.values(this.#vitals).map((vital) => vital.root));
    session.on("firstFrame", (ms) => this.#vitals.firstFrame.push(ms));
    setInterval(() => this.#sample(session), SAMPLE_MS);
  }

  #sample(session: AvatarSession): void {
    if (document.hidden) return;
    const stats = session.stats();
    const seen = stats.framesShown > 0;
    this.#vitals.roundTrip.push(stats.roundTripMs);
    this.#vitals.fps.push(seen ? stats.fps : null);
    this.#vitals.skew.push(stats.skewP95Ms);
    this.#vitals.buffer.push(seen ? stats.bufferedMs : null);
    this.#vitals.dropped.push(seen ? stats.framesDropped : null);
  }
}
