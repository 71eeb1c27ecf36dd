/** The recordings: bundled ones by one click, or a file of your own. */
import type { Sample } from "./api";
import { clock } from "./clock";
import { element, icon } from "./dom";

const PLAY = "M8 5.5v13l10.5-6.5z";
const STOP = "M7.5 7.5h9v9h-9z";
const FOLDER =
  "M4 7.5A1.5 1.5 0 0 1 5.5 6h4l2 2h7A1.5 1.5 0 0 1 20 9.5v8a1.5 1.5 0 0 1-1.5 1.5h-13A1.5 1.5 0 0 1 4 17.5z";

export interface RecordingSource {
  id: string;
  title: string;
  bytes(): Promise<ArrayBuffer>;
}

export interface RecordingHandlers {
  play(source: RecordingSource): void;
  stop(): void;
}

export class Recordings {
  #samples: Sample[] = [];
  #own: File | null = null;
  #activeId: string | null = null;
  #enabled = false;

  constructor(
    readonly list: HTMLUListElement,
    readonly input: HTMLInputElement,
    readonly handlers: RecordingHandlers,
  ) {
    input.addEventListener("change", () => {
      const file = input.files?.[0];
      if (file) this.playFile(file);
      input.value = "";
    });
    this.#render();
  }

  setSamples(samples: Sample[]): void {
    this.#samples = samples;
    this.#render();
  }

  setEnabled(enabled: boolean): void {
    if (enabled === this.#enabled) return;
    this.#enabled = enabled;
    this.#render();
  }

  playFile(file: File): void {
    this.#own = file;
    this.#render();
    this.handlers.play({ id: "own", title: file.name, bytes: () => file.arrayBuffer() });
  }

  /** The recording that plays, with its progress in 0..1, or none. */
  setActive(id: string | null, progress = 0): void {
    if (id !== this.#activeId) {
      this.#activeId = id;
      this.#render();
    }
    this.list
      .querySelector<HTMLElement>(".recording.is-active")
      ?.style.setProperty("--progress", Math.min(1, progress).toFixed(2));
  }

  #render(): void {
    const focusedId = (document.activeElement as HTMLElement | null)?.dataset.recording;
    const rows = this.#samples.map((sample) => this.#sampleRow(sample));
    if (this.#own) rows.push(this.#ownRow(this.#own));
    rows.push(this.#browseRow());
    this.list.replaceChildren(...rows);
    if (focusedId) {
      this.list.querySelector<HTMLElement>(`[data-recording="${CSS.escape(focusedId)}"]`)?.focus();
    }
  }

  #sampleRow(sample: Sample): HTMLLIElement {
    const source = { id: sample.id, title: sample.title, bytes: () => fetchBytes(sample.url) };
    return this.#row(source, sample.seconds === null ? "" : clock(Math.round(sample.seconds)));
  }

  #ownRow(file: File): HTMLLIElement {
    return this.#row({ id: "own", title: file.name, bytes: () => file.arrayBuffer() }, "yours");
  }

  #row(source: RecordingSource, note: string): HTMLLIElement {
    const active = source.id === this.#activeId;
    const button = element("button", {
      type: "button",
      class: active ? "recording is-active" : "recording",
      "data-recording": source.id,
      disabled: !this.#enabled && !active,
    });
    button.append(
      element("span", { class: "recording-icon" }, icon(active ? STOP : PLAY, true)),
      element("span", { class: "visually-hidden" }, active ? "Stop " : "Play "),
      element("span", { class: "recording-title" }, source.title),
      element("span", { class: "recording-note" }, note),
    );
    button.addEventListener("click", () =>
      active ? this.handlers.stop() : this.handlers.play(source),
    );
    return element("li", {}, button);
  }

  #browseRow(): HTMLLIElement {
    const button = element("button", {
      type: "button",
      class: "recording recording-browse",
      "data-recording": "browse",
      disabled: !this.#enabled,
    });
    button.append(
      element("span", { class: "recording-icon" }, icon(FOLDER)),
      element("span", { class: "recording-title" }, "Use an audio file"),
    );
    button.addEventListener("click", () => this.input.click());
    return element("li", {}, button);
  }
}

async function fetchBytes(url: string): Promise<ArrayBuffer> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`The recording could not be loaded (${response.status}).`);
  return response.arrayBuffer();
}
