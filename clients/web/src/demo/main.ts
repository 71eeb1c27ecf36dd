/** The page: wires the client to the gallery, the recordings, the microphone and the figures. */
import "./styles/base.css";
import "./styles/stage.css";
import "./styles/panel.css";
import "./styles/vitals.css";
import { AvatarClient, type AvatarState, decodeRecording, type VideoFormat } from "../lib";
import { type ApiError, type Avatar, listSamples, sessionUrl } from "./api";
import { byId } from "./dom";
import { acceptFiles } from "./drop";
import { Gallery } from "./gallery";
import { installHook } from "./hook";
import {
  endAdvice,
  NO_PORTRAITS,
  reconnectAdvice,
  sentence,
  UNREACHABLE,
  uploadAdvice,
} from "./messages";
import { type RecordingSource, Recordings } from "./recordings";
import { Stage } from "./stage";
import { TalkControls } from "./talk";
import { Toasts } from "./toasts";
import { Vitals } from "./vitals";

/** Errors that close the session are followed by the close within this time. */
const ERROR_SETTLES_MS = 250;
/** A server that did not answer is asked again after this. */
const RETRY_MS = 5_000;

const query = new URLSearchParams(location.search);

function wantedVideo(): VideoFormat | "auto" {
  const wanted = query.get("video");
  return wanted === "jpeg" || wanted === "h264" ? wanted : "auto";
}

class Page {
  readonly stage = new Stage();
  readonly toasts = new Toasts(byId("toasts", HTMLElement));
  readonly stopButton = byId("stop", HTMLButtonElement);
  readonly client = new AvatarClient({
    url: sessionUrl(),
    canvas: this.stage.canvas,
    video: wantedVideo(),
  });
  readonly hook = installHook(this.client);
  readonly gallery = new Gallery(
    byId("gallery", HTMLUListElement),
    byId("photo-input", HTMLInputElement),
    {
      choose: (avatar) => this.choose(avatar),
      failed: (error) => this.complain(uploadAdvice(error)),
    },
  );
  readonly recordings = new Recordings(
    byId("recordings", HTMLUListElement),
    byId("audio-input", HTMLInputElement),
    { play: (source) => void this.play(source), stop: () => this.stop() },
  );
  readonly talk = new TalkControls(
    this.client,
    (message) => this.complain(message),
    () => this.interruptRecording(),
  );
  /** Speech frames shown of the recording that plays, and how many it will have. */
  #progress: { id: string; shown: number; total: number } | null = null;

  #ready = false;
  #retryTimer: ReturnType<typeof setTimeout> | undefined;

  start(): void {
    this.stage.attach(this.client);
    new Vitals(byId("vitals", HTMLElement), this.client);
    this.#listenToClient();
    this.#listenToPage();
    this.#onState(this.client.state);
    void this.#loadPortraits();
    listSamples().then(
      (samples) => this.recordings.setSamples(samples),
      () => {},
    );
  }

  choose(avatar: Avatar): void {
    this.toasts.clear();
    this.stage.clearTrouble();
    this.stage.showAvatar(avatar);
    this.#endProgress();
    const credit = avatar.credit ? `${avatar.name}: ${sentence(avatar.credit)}` : "";
    byId("colophon-credit", HTMLElement).textContent = credit;
    if (avatar.warnings.length) this.toasts.show("info", avatar.warnings.join(" "));
    void this.client.open(avatar.id);
  }

  async play(source: RecordingSource): Promise<void> {
    this.stop();
    try {
      await this.client.unlock();
      const pcm = await decodeRecording(await source.bytes(), this.client.sampleRate);
      if (!this.client.speak(pcm)) return;
      const total = Math.ceil((pcm.length * 25) / this.client.sampleRate);
      this.#progress = { id: source.id, shown: 0, total };
      this.recordings.setActive(source.id);
    } catch (error) {
      this.complain(error instanceof Error ? error.message : String(error));
    }
  }

  stop(): void {
    this.talk.endTurn();
    this.client.stop();
    this.#endProgress();
  }

  /** Speaking into a recording is a barge-in. */
  interruptRecording(): void {
    if (!this.#progress) return;
    this.client.stop();
    this.#endProgress();
  }

  complain(message: string): void {
    this.hook.lastError = message;
    this.toasts.show("error", message);
  }

  #listenToClient(): void {
    const { client } = this;
    client.on("state", (state) => this.#onState(state));
    client.on("busy", (busy) => {
      this.stopButton.disabled = !busy;
      if (!busy) this.#endProgress();
    });
    client.on("shown", (frame) => {
      if (!this.#progress || !frame.speech) return;
      this.#progress.shown += 1;
      const { id, shown, total } = this.#progress;
      this.recordings.setActive(id, shown / total);
    });
    client.on("error", (error) => {
      // An error that ends the session gets the stage; the others get a notice.
      setTimeout(() => this.#ready && this.complain(sentence(error.message)), ERROR_SETTLES_MS);
    });
    client.on("videoFallback", (reason) => {
      this.hook.lastError = reason;
      this.toasts.show("info", "H.264 failed in this browser; the picture now comes as JPEG.");
    });
    client.on("reconnecting", ({ error }) => {
      this.#endProgress();
      this.stage.showTrouble(reconnectAdvice(error), () => this.#reopen());
      this.hook.lastError = error?.message ?? "connection lost";
    });
    client.on("ended", (end) => {
      this.#endProgress();
      const advice = endAdvice(end);
      this.hook.lastError = advice.title;
      this.stage.showTrouble(advice, () => this.#reopen());
    });
  }

  #listenToPage(): void {
    // Browsers allow sound only after a gesture: any gesture will do.
    for (const name of ["pointerdown", "keydown"] as const) {
      document.addEventListener(name, () => void this.client.unlock(), { capture: true });
    }
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.stop();
    });
    this.stopButton.addEventListener("click", () => this.stop());
    acceptFiles(byId("drop-veil", HTMLElement), {
      photo: (file) => void this.gallery.upload(file),
      recording: (file) => this.recordings.playFile(file),
      unknown: (file) =>
        this.complain(`${file.name} is neither a picture nor a recording. Drop one of these.`),
    });
    window.addEventListener("pagehide", () => void this.client.close());
  }

  async #loadPortraits(): Promise<void> {
    clearTimeout(this.#retryTimer);
    try {
      await this.gallery.load(query.get("avatar"));
      this.stage.clearTrouble();
      if (!this.gallery.selected) this.stage.showTrouble(NO_PORTRAITS, () => this.gallery.browse());
    } catch (error) {
      this.#retryTimer = setTimeout(() => void this.#loadPortraits(), RETRY_MS);
      const { code, message } = error as ApiError;
      const advice =
        code === "unreachable" ? UNREACHABLE : { ...UNREACHABLE, remedy: sentence(message) };
      this.hook.lastError = advice.title;
      this.stage.showState("error");
      this.stage.showTrouble(advice, () => void this.#loadPortraits());
    }
  }

  #reopen(): void {
    const avatar = this.gallery.selected;
    if (avatar) this.choose(avatar);
    else void this.#loadPortraits();
  }

  #onState(state: AvatarState): void {
    this.stage.showState(state);
    const ready = state === "idle" || state === "listening" || state === "speaking";
    this.#ready = ready;
    this.talk.setReady(ready);
    this.talk.setSpeaking(state === "speaking");
    this.recordings.setEnabled(ready);
    const format = this.client.video === "jpeg" ? "JPEG" : "H.264";
    byId("colophon-video", HTMLElement).textContent = ready ? `Picture: ${format} · 25 fps` : "";
  }

  #endProgress(): void {
    this.#progress = null;
    this.recordings.setActive(null);
  }
}

new Page().start();
