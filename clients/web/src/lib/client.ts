/**
 * A session and its player as one thing: choose a portrait, send it speech, watch it talk. Falls
 * back to JPEG when H.264 fails, acknowledges playback, and measures the time to the first frame.
 */
import { DEFAULT_H264_CODEC, supportsH264 } from "./decoder";
import { Emitter } from "./emitter";
import type { ErrorBody, ServerEvent, VideoFormat } from "./events";
import { Player, type ShownFrame } from "./player";
import { RecordingFeeder } from "./recording";
import { AvatarSession, type SessionEnd } from "./session";

/** What the viewer sees, not what the socket does. */
export type AvatarState =
  | "connecting"
  | "loading"
  | "idle"
  | "listening"
  | "speaking"
  | "reconnecting"
  | "error";

export interface ClientOptions {
  url: string;
  canvas: HTMLCanvasElement;
  /** Hz, of the audio sent and heard. */
  sampleRate?: number;
  /** `auto`: H.264 where the browser decodes it, else JPEG. */
  video?: VideoFormat | "auto";
  token?: string;
}

export interface ClientEvents {
  state: AvatarState;
  loading: { stage: string; progress: number };
  shown: ShownFrame;
  /** True while there is something that `stop` would stop. */
  busy: boolean;
  /** Milliseconds from the first audio of an utterance to its first frame on the screen. */
  firstFrame: number;
  /** All speech that was sent has been shown. */
  finished: { response: number };
  videoFallback: string;
  reconnecting: { delayMs: number; attempt: number; error: ErrorBody | null };
  ended: SessionEnd;
  error: ErrorBody;
}

const ACKNOWLEDGE_MS = 300;

export class AvatarClient extends Emitter<ClientEvents> {
  readonly player: Player;
  readonly sampleRate: number;
  #session: AvatarSession | null = null;
  #video: VideoFormat | "auto";
  #codec = DEFAULT_H264_CODEC;
  #feeder: RecordingFeeder | null = null;
  #state: AvatarState = "connecting";
  #busy = false;
  #ended = false;
  #speaking = false;
  #microphoneOpen = false;
  #utteranceOpen = false;
  #openedAtMs: number[] = [];
  #lastResponse = 0;
  #shownResponse = 0;
  #lastShown: ShownFrame | null = null;
  #serverDropped = 0;
  readonly #acknowledgeTimer: ReturnType<typeof setInterval>;

  constructor(readonly options: ClientOptions) {
    super();
    this.sampleRate = options.sampleRate ?? 24_000;
    this.#video = options.video ?? "auto";
    this.player = new Player(options.canvas, this.sampleRate);
    this.player.on("shown", (frame) => this.#onShown(frame));
    this.player.on("failed", (message) => this.#onVideoFailed(message));
    this.#acknowledgeTimer = setInterval(() => this.#acknowledge(), ACKNOWLEDGE_MS);
  }

  get state(): AvatarState {
    return this.#state;
  }

  get video(): VideoFormat | "auto" {
    return this.#video;
  }

  get framesDropped(): number {
    return this.player.metrics.framesDropped + this.#serverDropped;
  }

  /** Leaves the current portrait, if any, and opens a session with another one. */
  async open(avatarId: string): Promise<void> {
    this.#leave();
    if (this.#video === "auto") this.#video = (await supportsH264()) ? "h264" : "jpeg";
    const { url, token } = this.options;
    const session = new AvatarSession({
      url,
      avatarId,
      sampleRate: this.sampleRate,
      video: this.#video,
      ...(token ? { token } : {}),
    });
    this.#session = session;
    this.#listenTo(session);
    session.connect();
  }

  /** Allows sound; call from a user gesture. */
  unlock(): Promise<void> {
    return this.player.audio.unlock();
  }

  /** Begins an utterance; audio follows with `sendAudio`, and `endUtterance` closes it. */
  beginUtterance(): void {
    if (this.#utteranceOpen) return;
    this.#utteranceOpen = true;
    this.#openedAtMs.push(performance.now());
    this.#update();
  }

  sendAudio(pcm: Int16Array): boolean {
    return this.#session?.sendAudio(pcm) ?? false;
  }

  endUtterance(): void {
    if (!this.#utteranceOpen) return;
    this.#utteranceOpen = false;
    this.#session?.commit();
    this.#update();
  }

  /** Speaks a whole recording, PCM16 at the client's rate; what was being said is cut off. */
  speak(pcm: Int16Array): boolean {
    if (this.#session?.state !== "ready") return false;
    this.stop();
    this.#utteranceOpen = true;
    this.#openedAtMs.push(performance.now());
    this.#feeder = new RecordingFeeder(this.#session, pcm, () => {
      this.#utteranceOpen = false;
      this.#update();
    });
    this.#feeder.start();
    this.#update();
    return true;
  }

  /** Barge-in: silence now, and the server forgets what it had not shown. */
  stop(): void {
    const busy = this.#isBusy();
    this.#forgetUtterances();
    if (!busy) return;
    this.player.stop();
    this.#session?.cancel();
    this.#speaking = false;
    this.#update();
  }

  /** Tells the server that the microphone listens, so that the face can look attentive. */
  setListening(open: boolean): void {
    this.#microphoneOpen = open;
    this.#session?.send({ type: "avatar.set_state", state: open ? "listening" : "idle" });
    this.#update();
  }

  async close(): Promise<void> {
    clearInterval(this.#acknowledgeTimer);
    this.#leave();
    await this.player.close();
  }

  #listenTo(session: AvatarSession): void {
    session.on("state", () => this.#update());
    session.on("loading", (progress) => this.emit("loading", progress));
    session.on("settings", (settings) => {
      this.#codec = settings.output?.codec ?? this.#codec;
      this.player.configure(this.#videoFormat(), this.#codec, settings.output?.fps);
      if (this.#microphoneOpen) this.setListening(true);
    });
    session.on("media", (frame) => this.player.push(frame));
    session.on("cleared", ({ epoch }) => {
      this.player.clear(epoch);
      this.#speaking = false;
      this.#update();
    });
    session.on("error", (error) => this.emit("error", error));
    session.on("event", (event) => this.#onEvent(event));
    session.on("reconnecting", (attempt) => {
      this.#forgetUtterances();
      this.emit("reconnecting", attempt);
    });
    session.on("ended", (end) => {
      this.#forgetUtterances();
      this.#ended = true;
      this.#update();
      this.emit("ended", end);
    });
  }

  #onEvent(event: ServerEvent): void {
    if (event.type === "response.created") this.player.unmute();
    if (event.type === "output.dropped") this.#serverDropped += event.frames;
    if (event.type === "response.done" && event.status !== "completed") {
      // A failed response may never show a frame: nobody shall wait for it.
      if (event.status === "failed") this.#openedAtMs.shift();
      this.#shownResponse = 0;
      this.#speaking = false;
      this.#update();
      this.emit("finished", { response: event.response_index ?? 0 });
    }
  }

  #onShown(frame: ShownFrame): void {
    this.#lastShown = frame;
    if (frame.speech && frame.response !== this.#lastResponse) {
      this.#lastResponse = frame.response;
      const openedAtMs = this.#openedAtMs.shift();
      if (openedAtMs !== undefined) this.emit("firstFrame", performance.now() - openedAtMs);
    }
    const speaking = frame.speech && !frame.last;
    if (speaking !== this.#speaking) {
      this.#speaking = speaking;
      this.#update();
    }
    this.emit("shown", frame);
    this.#noticeEnd(frame);
  }

  /** A response has ended with its last frame, or, if that was dropped, with the next one shown. */
  #noticeEnd(frame: ShownFrame): void {
    const response = frame.speech ? frame.response : 0;
    if (this.#shownResponse !== 0 && response !== this.#shownResponse) {
      this.emit("finished", { response: this.#shownResponse });
    }
    this.#shownResponse = frame.last ? 0 : response;
    if (frame.speech && frame.last) this.emit("finished", { response });
  }

  #onVideoFailed(message: string): void {
    if (this.#video !== "h264" || !this.#session) return;
    this.#video = "jpeg";
    this.emit("videoFallback", message);
    void this.open(this.#session.options.avatarId);
  }

  #acknowledge(): void {
    const shown = this.#lastShown;
    if (!shown || this.#session?.state !== "ready") return;
    this.#session.send({
      type: "playback.update",
      seq: shown.seq,
      pts_us: shown.ptsUs,
      buffered_ms: Math.round(this.player.bufferedMs),
      underruns: this.player.metrics.underruns,
      skew_ms: Math.round(shown.skewMs * 10) / 10,
    });
  }

  #videoFormat(): VideoFormat {
    return this.#video === "auto" ? "jpeg" : this.#video;
  }

  #forgetUtterances(): void {
    this.#feeder?.stop();
    this.#feeder = null;
    this.#utteranceOpen = false;
    this.#openedAtMs = [];
  }

  #leave(): void {
    this.#forgetUtterances();
    this.#session?.close();
    this.#session = null;
    this.player.audio.stop();
    this.#ended = false;
    this.#speaking = false;
    this.#lastResponse = 0;
    this.#shownResponse = 0;
    this.#lastShown = null;
  }

  #isBusy(): boolean {
    return this.#speaking || this.#utteranceOpen || this.#openedAtMs.length > 0;
  }

  #update(): void {
    const busy = this.#isBusy();
    if (busy !== this.#busy) {
      this.#busy = busy;
      this.emit("busy", busy);
    }
    const state = this.#derivedState();
    if (state === this.#state) return;
    this.#state = state;
    this.emit("state", state);
  }

  #derivedState(): AvatarState {
    if (this.#ended) return "error";
    const session = this.#session?.state;
    if (session !== "ready") return !session || session === "closed" ? "connecting" : session;
    if (this.#speaking) return "speaking";
    return this.#isBusy() || this.#microphoneOpen ? "listening" : "idle";
  }
}
