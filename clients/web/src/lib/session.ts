/**
 * A talking avatar: `connect` a canvas to a server, send speech, watch it talk. The connection, the
 * decoding, the playout by the sound's clock and the acknowledgements are taken care of here.
 */
import { Channel } from "./channel";
import type { PictureFormat } from "./decoder";
import { Emitter } from "./emitter";
import { AvatarError } from "./errors";
import type { Face } from "./face";
import { Opener } from "./opener";
import {
  mutableSettings,
  type PictureSize,
  type SessionChanges,
  type SessionEvents,
  type SessionOptions,
} from "./options";
import { PageLife } from "./page-life";
import { floatToPcm } from "./pcm";
import type { EffectiveSettings, ServerEvent } from "./protocol";
import { Readiness } from "./readiness";
import { Recorder } from "./recorder";
import { ServerFigures, type SessionStats, snapshot } from "./stats";
import type { AvatarStatus, ConnectionStatus, ServerFacts } from "./status";
import { Viewer } from "./viewer";
import { VoiceInput } from "./voice-input";

/** Long enough to be no click, short enough to be no delay. */
const FADE_MS = 60;

/**
 * Opens a session; `session.ready` resolves when the face is live. Throws AvatarError
 * `invalid_options`.
 */
export function connect(options: SessionOptions): AvatarSession {
  return new AvatarSession(options);
}

export class AvatarSession extends Emitter<SessionEvents> {
  /** Hz, of the audio sent and heard. */
  readonly sampleRate: number;
  /** Resolves when the face is live for the first time, rejects with the error that refused it. */
  readonly ready: Promise<void>;
  readonly #readiness = new Readiness();
  readonly microphone: VoiceInput;
  readonly recorder: Recorder;
  readonly #channel = new Channel();
  readonly #viewer: Viewer;
  readonly #server = new ServerFigures();
  readonly #pageLife: PageLife;
  readonly #opener: Opener;
  #status: AvatarStatus = { state: "connecting" };
  #ended = false;

  constructor(readonly options: SessionOptions) {
    super();
    this.#opener = new Opener(options);
    this.sampleRate = this.#opener.sampleRate;
    const viewer = new Viewer(options.canvas, this.sampleRate, () => this.#channel.connection);
    this.#viewer = viewer;
    viewer.on("shown", (frame) => this.emit("shown", frame));
    viewer.on("firstFrame", (afterMs) => this.emit("firstFrame", afterMs));
    viewer.on("finished", (response) => this.emit("finished", response));
    viewer.on("moved", () => this.#update());
    viewer.player.on("failed", (message) => this.#onPictureFailed(message));
    viewer.speech.on("busy", (busy) => this.emit("busy", busy));
    viewer.speech.on("speaking", (speaking) => {
      this.microphone.loudspeaking = speaking;
    });
    this.microphone = new VoiceInput(this.sampleRate, {
      begin: () => this.#beginByVoice(),
      audio: (pcm) => void this.sendAudio(pcm),
      end: () => this.commit(),
      opened: (open) => this.setListening(open),
    });
    this.recorder = new Recorder(viewer.player, {
      sampleRate: this.sampleRate,
      keyframe: () => viewer.requestKeyframe(),
      created: () => this.#channel.connection?.created ?? null,
    });
    this.#channel.on("status", (status) => this.#onStatus(status));
    this.#channel.on("error", (error) => this.emit("warning", error));
    this.#channel.on("event", (event) => this.#onEvent(event));
    this.#channel.on("media", (frame) => viewer.receive(frame));
    this.#pageLife = new PageLife({
      gone: () => {
        if (options.closeOnPageHide ?? true) void this.close();
      },
      restored: () => {
        if (this.#status.state === "reconnecting") void this.retry();
      },
    });
    this.ready = this.#readiness.promise;
    void this.#open();
  }

  get status(): AvatarStatus {
    return this.#status;
  }

  /** Its id; null for a face that was brought as a picture. */
  get avatar(): string | null {
    return this.#opener.avatar;
  }

  /** What the server said of itself: limits, timing, what it offers and can do; null before that. */
  get server(): ServerFacts | null {
    return this.#channel.connection?.created ?? null;
  }

  /** The format in use; `auto` until it is chosen. */
  get picture(): PictureFormat | "auto" {
    return this.#opener.picture;
  }

  /** True while there is something that `cancel` would stop. */
  get busy(): boolean {
    return this.#viewer.speech.busy;
  }

  /** Loudness of what is heard now, 0 to 1. */
  get level(): number {
    return this.#viewer.player.audio.level();
  }

  /** Allows sound; call from a user gesture, once. Without it the face moves in silence. */
  unlock(): Promise<void> {
    return this.#viewer.player.audio.unlock();
  }

  /** Begins an utterance before its first audio is there; `sendAudio` does it, too. */
  begin(): void {
    if (!this.#viewer.speech.turns.begin(performance.now())) return;
    this.#viewer.feedback.ping();
    this.#update();
  }

  /**
   * Mono speech at `sampleRate`, PCM16 or floats in -1..1, as fast as you like: what the server has
   * no room for waits here. Returns false, and takes nothing, while the session is neither live nor
   * being resumed, and when `maxHeldMs` wait already.
   */
  sendAudio(samples: Int16Array | Float32Array): boolean {
    const { connection } = this.#channel;
    if (!connection?.accepts) return false;
    this.begin();
    return connection.sendAudio(samples instanceof Float32Array ? floatToPcm(samples) : samples);
  }

  /** End of the utterance: what was sent is spoken to its end. */
  commit(): void {
    if (!this.#viewer.speech.turns.end()) return;
    this.#channel.connection?.command({ type: "input_audio_buffer.commit" });
    this.#update();
  }

  /** Takes back what was said of the open utterance, as far as the model has not heard it. */
  clear(): void {
    this.#channel.connection?.command({ type: "input_audio_buffer.clear" });
  }

  /** Changes what may change while a session runs; a session after it has it, too. */
  update(changes: SessionChanges): void {
    this.#opener.change(changes);
    this.#channel.connection?.update(mutableSettings(changes));
  }

  /** Speaks a whole recording, paced for you; what was being said is cut off. */
  say(samples: Int16Array | Float32Array): boolean {
    const { connection } = this.#channel;
    if (!connection?.accepts) return false;
    this.cancel();
    const pcm = samples instanceof Float32Array ? floatToPcm(samples) : samples;
    this.#viewer.speech.say(connection, pcm, () => this.commit());
    this.#viewer.feedback.ping();
    this.#update();
    return true;
  }

  /** Barge-in: the sound fades at once, here; the server then forgets what was not yet seen. */
  cancel({ fadeMs = FADE_MS }: { fadeMs?: number } = {}): void {
    const { busy } = this.#viewer.speech.turns;
    this.#viewer.speech.forget();
    if (!busy) return;
    this.#viewer.cut(fadeMs);
    this.#update();
  }

  /** Tells the server that somebody listens to you, so that the face looks attentive. */
  setListening(open: boolean): void {
    this.#viewer.speech.listening = open;
    this.#viewer.tellListening();
    this.#update();
  }

  /**
   * Leaves this face for another one, on the same canvas and the same sound; `size` of its pictures,
   * the size so far if left out. Throws AvatarError `invalid_options` for another size while the
   * recorder runs: a video has one.
   */
  async switchTo(face: string | Face, size?: PictureSize): Promise<void> {
    if (size && this.recorder.active) {
      const message = "A video has one size: stop recording before you choose another.";
      throw new AvatarError({ code: "invalid_options", message });
    }
    this.#opener.show(face, size);
    await this.#open();
  }

  /** Tries again at once: while reconnecting, or after `expired`, `refused` and `closed`. */
  async retry(): Promise<void> {
    if (this.#status.state === "reconnecting") await this.#channel.connection?.connect();
    else await this.#open();
  }

  stats(): SessionStats {
    return snapshot({
      player: this.#viewer.player,
      firstFrameMs: this.#viewer.speech.turns.lastFirstFrameMs,
      roundTripMs: this.#viewer.feedback.roundTripMs,
      server: this.#server,
    });
  }

  /** Ends the session and frees everything. It cannot be used afterwards. */
  async close(): Promise<void> {
    this.#ended = true;
    this.#pageLife.close();
    this.#viewer.feedback.close();
    this.#readiness.fail(
      new AvatarError({ code: "aborted", message: "the session was closed before it was live" }),
    );
    this.recorder.discard();
    // Before anything is awaited: a page that is left has no time for more.
    this.#leave();
    this.#setStatus({ state: "closed" });
    await this.microphone.close();
    await this.#viewer.player.close();
  }

  async #open(): Promise<void> {
    this.#leave();
    try {
      const options = await this.#opener.connectionOptions();
      if (!this.#ended) await this.#channel.open(options);
    } catch (error) {
      if (!(error instanceof AvatarError)) throw error;
      this.#onStatus({ state: "refused", error });
    }
  }

  #onStatus(status: ConnectionStatus): void {
    if (status.state === "live") {
      this.#goLive(status);
      return;
    }
    // A held session goes on with the same utterance; with any other loss it is gone.
    if (status.state !== "reconnecting" || !status.resuming) this.#viewer.speech.forget();
    if (status.state === "refused" || status.state === "expired") {
      this.#readiness.fail(status.error);
    }
    this.#setStatus(status);
    this.#update();
  }

  #goLive(status: Extract<ConnectionStatus, { state: "live" }>): void {
    if (status.resumed) {
      this.#viewer.goOn();
    } else {
      const picture = this.picture === "auto" ? "jpeg" : this.picture;
      this.#viewer.start(status.settings, picture, this.server?.timing?.fps);
      if (this.#viewer.speech.listening) this.#viewer.tellListening();
    }
    this.#readiness.succeed();
    this.#setStatus({ ...status, activity: this.#viewer.speech.activity });
    this.#update();
    this.#viewer.feedback.ping();
  }

  #onEvent(event: ServerEvent): void {
    this.#viewer.follow(event);
    if (event.type === "session.updated") this.#onUpdated(event.session);
    if (event.type === "session.expiring") {
      const { reason, deadline_s: deadlineS, resumable = false } = event;
      this.emit("expiring", { reason, deadlineS, resumable });
    }
    this.#server.follow(event);
    this.emit("event", event);
    this.#update();
  }

  /** The first time the status has them already. */
  #onUpdated(settings: EffectiveSettings): void {
    if (this.#status.state !== "live" || this.#status.settings === settings) return;
    this.#setStatus({ ...this.#status, settings });
  }

  #onPictureFailed(message: string): void {
    if (this.picture !== "h264") {
      const error = new AvatarError({ code: "video_failed", message });
      this.emit("warning", error);
      return;
    }
    this.#opener.picture = "jpeg";
    this.emit("fallback", { picture: "jpeg", reason: message });
    void this.#open();
  }

  /** A pressed button interrupts whatever is said; an open microphone only a recording. */
  #beginByVoice(): void {
    const interrupts =
      this.microphone.mode === "push" ? this.#viewer.speech.busy : this.#viewer.speech.saying;
    if (interrupts) this.cancel();
    this.begin();
  }

  #leave(): void {
    this.#viewer.speech.forget();
    this.#channel.leave();
    this.#viewer.leave();
  }

  #update(): void {
    this.#viewer.speech.update();
    const { activity } = this.#viewer.speech;
    if (this.#status.state === "live" && this.#status.activity !== activity) {
      this.#setStatus({ ...this.#status, activity });
    }
  }

  #setStatus(status: AvatarStatus): void {
    this.#status = status;
    this.emit("status", status);
  }
}
