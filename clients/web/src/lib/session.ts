/**
 * A talking avatar: `connect` a canvas to a server, send speech, watch it talk. The connection, the
 * decoding, the playout by the sound's clock and the acknowledgements are taken care of here.
 */
import { Channel } from "./channel";
import { DEFAULT_H264_CODEC, type PictureFormat, supportsH264 } from "./decoder";
import { Emitter } from "./emitter";
import { AvatarError } from "./errors";
import { Feedback } from "./feedback";
import { connectionOptions, type SessionEvents, type SessionOptions } from "./options";
import { floatToPcm } from "./pcm";
import { Player, type ShownFrame } from "./player";
import type { ServerEvent } from "./protocol";
import { Readiness } from "./readiness";
import { Recorder } from "./recorder";
import { Speech } from "./speech";
import { ServerFigures, type SessionStats, snapshot } from "./stats";
import type { AvatarStatus, ConnectionStatus } from "./status";
import { VoiceInput } from "./voice-input";

/** Long enough to be no click, short enough to be no delay. */
const FADE_MS = 60;
const DEFAULT_RATE = 24_000;

/** Opens a session; `session.ready` resolves when the face is live. */
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
  readonly #player: Player;
  readonly #speech = new Speech();
  readonly #feedback: Feedback;
  readonly #channel = new Channel();
  readonly #server = new ServerFigures();
  #avatar: string;
  #picture: PictureFormat | "auto";
  #status: AvatarStatus = { state: "connecting" };

  constructor(readonly options: SessionOptions) {
    super();
    this.sampleRate = options.sampleRate ?? DEFAULT_RATE;
    this.#avatar = options.avatar;
    this.#picture = options.picture ?? "auto";
    this.#player = new Player(options.canvas, this.sampleRate);
    this.#feedback = new Feedback(this.#player, () => this.#channel.connection);
    this.#player.on("shown", (frame) => this.#onShown(frame));
    this.#player.on("failed", (message) => this.#onPictureFailed(message));
    this.#player.on("lostThread", () =>
      this.#channel.connection?.send({ type: "output.request_keyframe" }),
    );
    this.microphone = new VoiceInput(this.sampleRate, {
      begin: () => this.#beginByVoice(),
      audio: (pcm) => void this.sendAudio(pcm),
      end: () => this.commit(),
      opened: (open) => this.setListening(open),
    });
    this.recorder = new Recorder(this.#player, {
      sampleRate: this.sampleRate,
      keyframe: () => this.#channel.connection?.send({ type: "output.request_keyframe" }),
    });
    this.#speech.on("busy", (busy) => this.emit("busy", busy));
    this.#channel.on("status", (status) => this.#onStatus(status));
    this.#channel.on("error", (error) => this.emit("warning", error));
    this.#channel.on("event", (event) => this.#onEvent(event));
    this.#channel.on("media", (frame) => {
      this.#feedback.received(frame.seq);
      this.#player.push(frame);
    });
    this.ready = this.#readiness.promise;
    void this.#open();
  }

  get status(): AvatarStatus {
    return this.#status;
  }

  get avatar(): string {
    return this.#avatar;
  }

  /** The format in use; `auto` until it is chosen. */
  get picture(): PictureFormat | "auto" {
    return this.#picture;
  }

  /** True while there is something that `cancel` would stop. */
  get busy(): boolean {
    return this.#speech.busy;
  }

  /** Loudness of what is heard now, 0 to 1. */
  get level(): number {
    return this.#player.audio.level();
  }

  /** Allows sound; call from a user gesture, once. Without it the face moves in silence. */
  unlock(): Promise<void> {
    return this.#player.audio.unlock();
  }

  /** Begins an utterance before its first audio is there; `sendAudio` does it, too. */
  begin(): void {
    if (!this.#speech.turns.begin(performance.now())) return;
    this.#feedback.ping();
    this.#update();
  }

  /**
   * Mono speech at `sampleRate`, PCM16 or floats in -1..1, as fast as you like up to the server's
   * buffer. Returns false, and takes nothing, while the session is not live.
   */
  sendAudio(samples: Int16Array | Float32Array): boolean {
    const { connection } = this.#channel;
    if (!connection?.live) return false;
    this.begin();
    return connection.sendAudio(samples instanceof Float32Array ? floatToPcm(samples) : samples);
  }

  /** End of the utterance: what was sent is spoken to its end. */
  commit(): void {
    if (!this.#speech.turns.end()) return;
    this.#channel.connection?.send({ type: "input_audio_buffer.commit" });
    this.#update();
  }

  /** Speaks a whole recording, paced for you; what was being said is cut off. */
  say(samples: Int16Array | Float32Array): boolean {
    const { connection } = this.#channel;
    if (!connection?.live) return false;
    this.cancel();
    const pcm = samples instanceof Float32Array ? floatToPcm(samples) : samples;
    this.#speech.say(connection, pcm, () => this.commit());
    this.#feedback.ping();
    this.#update();
    return true;
  }

  /** Barge-in: the sound fades at once, here; the server then forgets what was not yet seen. */
  cancel({ fadeMs = FADE_MS }: { fadeMs?: number } = {}): void {
    const { busy } = this.#speech.turns;
    this.#speech.forget();
    if (!busy) return;
    this.#player.stop(fadeMs / 1000);
    // The server rewinds the face to the last frame seen: say which one that was.
    this.#feedback.acknowledge();
    this.#channel.connection?.cancel(fadeMs);
    this.#speech.turns.silence();
    this.#update();
  }

  /** Tells the server that somebody listens to you, so that the face looks attentive. */
  setListening(open: boolean): void {
    this.#speech.listening = open;
    this.#channel.connection?.send({
      type: "avatar.set_state",
      state: open ? "listening" : "idle",
    });
    this.#update();
  }

  /** Leaves this avatar for another one, on the same canvas and the same sound. */
  async switchTo(avatar: string): Promise<void> {
    this.#avatar = avatar;
    await this.#open();
  }

  /** Tries again at once: while reconnecting, or after `expired`, `refused` and `closed`. */
  async retry(): Promise<void> {
    if (this.#status.state === "reconnecting") await this.#channel.connection?.connect();
    else await this.#open();
  }

  stats(): SessionStats {
    return snapshot({
      player: this.#player,
      firstFrameMs: this.#speech.turns.lastFirstFrameMs,
      roundTripMs: this.#feedback.roundTripMs,
      server: this.#server,
    });
  }

  /** Ends the session and frees everything. It cannot be used afterwards. */
  async close(): Promise<void> {
    this.#feedback.close();
    this.#readiness.fail(
      new AvatarError({ code: "aborted", message: "the session was closed before it was live" }),
    );
    this.recorder.discard();
    await this.microphone.close();
    this.#leave();
    this.#setStatus({ state: "closed" });
    await this.#player.close();
  }

  async #open(): Promise<void> {
    this.#leave();
    if (this.#picture === "auto") this.#picture = (await supportsH264()) ? "h264" : "jpeg";
    const { options, sampleRate } = this;
    await this.#channel.open(connectionOptions(options, this.#avatar, this.#picture, sampleRate));
  }

  #onStatus(status: ConnectionStatus): void {
    if (status.state === "live") {
      this.#goLive(status);
      return;
    }
    // A held session goes on with the same utterance; with any other loss it is gone.
    if (status.state !== "reconnecting" || !status.resuming) this.#speech.forget();
    if (status.state === "refused" || status.state === "expired") {
      this.#readiness.fail(status.error);
    }
    this.#setStatus(status);
    this.#update();
  }

  #goLive(status: Extract<ConnectionStatus, { state: "live" }>): void {
    if (!status.resumed) {
      const { codec } = status.settings.output;
      const picture = this.#picture === "auto" ? "jpeg" : this.#picture;
      const known = picture === "h264" && codec ? codec : DEFAULT_H264_CODEC;
      // Messages keep the model's rate, also where fewer pictures were asked for.
      this.#player.configure(picture, known, this.#channel.connection?.timing?.fps);
      this.#newTimeline();
    }
    if (this.#speech.listening) this.setListening(true);
    this.#readiness.succeed();
    this.#setStatus({ ...status, activity: this.#speech.activity });
    this.#update();
    this.#feedback.ping();
  }

  #onEvent(event: ServerEvent): void {
    switch (event.type) {
      case "response.created":
        this.#player.unmute();
        break;
      case "output.cleared":
        this.#player.clear(event.epoch, (event.fade_ms ?? 0) / 1000);
        this.#speech.turns.silence();
        break;
      case "session.pong":
        this.#feedback.pong(event.t);
        break;
      case "session.expiring":
        this.emit("expiring", {
          reason: event.reason,
          deadlineS: event.deadline_s,
          resumable: event.resumable ?? false,
        });
        break;
      case "response.done":
        if (event.status !== "completed") {
          // A failed response may never show a frame: nobody shall wait for it.
          if (event.status === "failed") this.#speech.turns.failed();
          this.#speech.turns.silence();
          this.emit("finished", { response: event.response_index, status: event.status });
        }
        break;
      default:
        break;
    }
    this.#server.follow(event);
    this.emit("event", event);
    this.#update();
  }

  #onShown(frame: ShownFrame): void {
    this.#feedback.shown(frame);
    this.emit("shown", frame);
    const { firstFrameMs, finished } = this.#speech.turns.shown(frame, performance.now());
    if (firstFrameMs !== null) this.emit("firstFrame", firstFrameMs);
    for (const response of finished) this.emit("finished", { response, status: "completed" });
    this.#update();
  }

  #onPictureFailed(message: string): void {
    if (this.#picture !== "h264") {
      const error = new AvatarError({ code: "video_failed", message });
      this.emit("warning", error);
      return;
    }
    this.#picture = "jpeg";
    this.emit("fallback", { picture: "jpeg", reason: message });
    void this.#open();
  }

  /** A pressed button interrupts whatever is said; an open microphone only a recording. */
  #beginByVoice(): void {
    const interrupts = this.microphone.mode === "push" ? this.#speech.busy : this.#speech.saying;
    if (interrupts) this.cancel();
    this.begin();
  }

  #leave(): void {
    this.#speech.forget();
    this.#channel.leave();
    this.#player.audio.stop();
    this.#newTimeline();
  }

  #newTimeline(): void {
    this.#speech.turns.newTimeline();
    this.#feedback.newTimeline();
  }

  #update(): void {
    this.#speech.update();
    const { activity } = this.#speech;
    if (this.#status.state === "live" && this.#status.activity !== activity) {
      this.#setStatus({ ...this.#status, activity });
    }
  }

  #setStatus(status: AvatarStatus): void {
    this.#status = status;
    this.emit("status", status);
  }
}
