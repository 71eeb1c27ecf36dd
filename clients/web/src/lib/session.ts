/**
 * A talking avatar: `connect` a canvas to a server, send speech, watch it talk. The connection, the
 * decoding, the playout by the sound's clock and the acknowledgements are taken care of here.
 */
import { Connection } from "./connection";
import { DEFAULT_H264_CODEC, type PictureFormat, supportsH264 } from "./decoder";
import { Emitter } from "./emitter";
import { AvatarError } from "./errors";
import { connectionOptions, type SessionEvents, type SessionOptions } from "./options";
import { floatToPcm } from "./pcm";
import { Player, type ShownFrame } from "./player";
import type { ServerEvent } from "./protocol";
import { Recorder } from "./recorder";
import { RecordingFeeder } from "./recording";
import { RoundTrip } from "./round-trip";
import { type SessionStats, snapshot } from "./stats";
import type { Activity, AvatarStatus, ConnectionStatus } from "./status";
import { Turns } from "./turns";
import { VoiceInput } from "./voice-input";

const ACKNOWLEDGE_MS = 300;
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
  readonly microphone: VoiceInput;
  readonly recorder: Recorder;
  readonly #player: Player;
  readonly #turns = new Turns();
  readonly #roundTrip = new RoundTrip();
  #connection: Connection | null = null;
  #avatar: string;
  #picture: PictureFormat | "auto";
  #status: AvatarStatus = { state: "connecting" };
  #feeder: RecordingFeeder | null = null;
  /** A recording is being sent or shown. */
  #saying = false;
  #listening = false;
  #busy = false;
  #lastShown: ShownFrame | null = null;
  #lastSeq = 0;
  #serverStats: Extract<ServerEvent, { type: "session.stats" }> | null = null;
  #serverDropped = 0;
  #settle: { resolve: () => void; reject: (error: AvatarError) => void } | null = null;
  readonly #acknowledgeTimer: ReturnType<typeof setInterval>;

  constructor(readonly options: SessionOptions) {
    super();
    this.sampleRate = options.sampleRate ?? DEFAULT_RATE;
    this.#avatar = options.avatar;
    this.#picture = options.picture ?? "auto";
    this.#player = new Player(options.canvas, this.sampleRate);
    this.#player.on("shown", (frame) => this.#onShown(frame));
    this.#player.on("failed", (message) => this.#onPictureFailed(message));
    this.#player.on("lostThread", () =>
      this.#connection?.send({ type: "output.request_keyframe" }),
    );
    this.microphone = new VoiceInput(this.sampleRate, {
      begin: () => this.#beginByVoice(),
      audio: (pcm) => void this.sendAudio(pcm),
      end: () => this.commit(),
      opened: (open) => this.setListening(open),
    });
    this.recorder = new Recorder(this.#player, {
      sampleRate: this.sampleRate,
      keyframe: () => this.#connection?.send({ type: "output.request_keyframe" }),
    });
    this.#acknowledgeTimer = setInterval(() => this.#acknowledge(), ACKNOWLEDGE_MS);
    this.ready = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    // Whoever does not wait for `ready` hears of a refusal through `status`.
    this.ready.catch(() => {});
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
    return this.#busy;
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
    if (!this.#turns.begin(performance.now())) return;
    this.#ping();
    this.#update();
  }

  /**
   * Mono speech at `sampleRate`, PCM16 or floats in -1..1, as fast as you like up to the server's
   * buffer. Returns false, and takes nothing, while the session is not live.
   */
  sendAudio(samples: Int16Array | Float32Array): boolean {
    if (!this.#connection?.live) return false;
    this.begin();
    return this.#connection.sendAudio(
      samples instanceof Float32Array ? floatToPcm(samples) : samples,
    );
  }

  /** End of the utterance: what was sent is spoken to its end. */
  commit(): void {
    if (!this.#turns.end()) return;
    this.#connection?.send({ type: "input_audio_buffer.commit" });
    this.#update();
  }

  /** Speaks a whole recording, paced for you; what was being said is cut off. */
  say(samples: Int16Array | Float32Array): boolean {
    const connection = this.#connection;
    if (!connection?.live) return false;
    this.cancel();
    this.#turns.begin(performance.now());
    this.#saying = true;
    const pcm = samples instanceof Float32Array ? floatToPcm(samples) : samples;
    this.#feeder = new RecordingFeeder(connection, pcm, () => {
      this.#feeder = null;
      this.commit();
    });
    this.#feeder.start();
    this.#ping();
    this.#update();
    return true;
  }

  /** Barge-in: the sound fades at once, here; the server then forgets what was not yet seen. */
  cancel({ fadeMs = FADE_MS }: { fadeMs?: number } = {}): void {
    const { busy } = this.#turns;
    this.#forgetTurns();
    if (!busy) return;
    this.#player.stop(fadeMs / 1000);
    // The server rewinds the face to the last frame seen: say which one that was.
    this.#acknowledge();
    this.#connection?.cancel(fadeMs);
    this.#turns.silence();
    this.#update();
  }

  /** Tells the server that somebody listens to you, so that the face looks attentive. */
  setListening(open: boolean): void {
    this.#listening = open;
    this.#connection?.send({ type: "avatar.set_state", state: open ? "listening" : "idle" });
    this.#update();
  }

  /** Leaves this avatar for another one, on the same canvas and the same sound. */
  async switchTo(avatar: string): Promise<void> {
    this.#avatar = avatar;
    await this.#open();
  }

  /** Tries again at once: while reconnecting, or after `expired`, `refused` and `closed`. */
  async retry(): Promise<void> {
    if (this.#status.state === "reconnecting") await this.#connection?.connect();
    else await this.#open();
  }

  stats(): SessionStats {
    return snapshot({
      player: this.#player,
      turns: this.#turns,
      roundTrip: this.#roundTrip,
      server: this.#serverStats,
      serverDropped: this.#serverDropped,
    });
  }

  /** Ends the session and frees everything. It cannot be used afterwards. */
  async close(): Promise<void> {
    clearInterval(this.#acknowledgeTimer);
    this.#settle?.reject(
      new AvatarError({ code: "aborted", message: "the session was closed before it was live" }),
    );
    this.#settle = null;
    this.recorder.discard();
    await this.microphone.close();
    this.#leave();
    this.#setStatus({ state: "closed" });
    await this.#player.close();
  }

  async #open(): Promise<void> {
    this.#leave();
    if (this.#picture === "auto") this.#picture = (await supportsH264()) ? "h264" : "jpeg";
    const connection = new Connection(
      connectionOptions(this.options, this.#avatar, this.#picture, this.sampleRate),
    );
    // Two quick changes of the avatar: the later one counts.
    this.#leave();
    this.#connection = connection;
    this.#listenTo(connection);
    await connection.connect();
  }

  /** What a connection says that was left is of no interest. */
  #listenTo(connection: Connection): void {
    const current = (): boolean => connection === this.#connection;
    connection.on("status", (status) => current() && this.#onStatus(status));
    connection.on("error", (error) => current() && this.emit("warning", error));
    connection.on("event", (event) => current() && this.#onEvent(event));
    connection.on("media", (frame) => {
      if (!current()) return;
      this.#lastSeq = frame.seq;
      this.#player.push(frame);
    });
  }

  #onStatus(status: ConnectionStatus): void {
    if (status.state === "live") {
      this.#goLive(status);
      return;
    }
    // A held session goes on with the same utterance; with any other loss it is gone.
    if (status.state !== "reconnecting" || !status.resuming) this.#forgetTurns();
    if (status.state === "refused" || status.state === "expired") {
      this.#settle?.reject(status.error);
      this.#settle = null;
    }
    this.#setStatus(status);
    this.#update();
  }

  #goLive(status: Extract<ConnectionStatus, { state: "live" }>): void {
    if (!status.resumed) {
      const { codec, fps } = status.settings.output;
      const picture = this.#picture === "auto" ? "jpeg" : this.#picture;
      const known = picture === "h264" && codec ? codec : DEFAULT_H264_CODEC;
      this.#player.configure(picture, known, fps ?? 25);
      this.#turns.newTimeline();
      this.#lastShown = null;
    }
    if (this.#listening) this.setListening(true);
    this.#settle?.resolve();
    this.#settle = null;
    this.#setStatus({ ...status, activity: this.#activity() });
    this.#update();
    this.#ping();
  }

  #onEvent(event: ServerEvent): void {
    switch (event.type) {
      case "response.created":
        this.#player.unmute();
        break;
      case "output.cleared":
        this.#player.clear(event.epoch, (event.fade_ms ?? 0) / 1000);
        this.#turns.silence();
        break;
      case "output.dropped":
        this.#serverDropped += event.frames;
        break;
      case "session.stats":
        this.#serverStats = event;
        break;
      case "session.pong":
        this.#roundTrip.pong(event.t, performance.now());
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
          if (event.status === "failed") this.#turns.failed();
          this.#turns.silence();
          this.emit("finished", { response: event.response_index, status: event.status });
        }
        break;
      default:
        break;
    }
    this.emit("event", event);
    this.#update();
  }

  #onShown(frame: ShownFrame): void {
    this.#lastShown = frame;
    this.emit("shown", frame);
    const { firstFrameMs, finished } = this.#turns.shown(frame, performance.now());
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

  #acknowledge(): void {
    const shown = this.#lastShown;
    if (!shown || !this.#connection?.live) return;
    this.#connection.send({
      type: "playback.update",
      seq: this.#lastSeq,
      pts_us: shown.ptsUs,
      buffered_ms: Math.round(this.#player.bufferedMs),
      underruns: this.#player.metrics.underruns,
      skew_ms: Math.round(shown.skewMs * 10) / 10,
    });
  }

  /** Only around speech: a ping counts as a sign of life, and an idle page shall expire. */
  #ping(): void {
    if (!this.#connection?.live) return;
    this.#connection.send({ type: "session.ping", t: this.#roundTrip.ping(performance.now()) });
  }

  /** A pressed button interrupts whatever is said; an open microphone only a recording. */
  #beginByVoice(): void {
    const interrupts = this.microphone.mode === "push" ? this.#busy : this.#saying;
    if (interrupts) this.cancel();
    this.begin();
  }

  #forgetTurns(): void {
    this.#feeder?.stop();
    this.#feeder = null;
    this.#saying = false;
    this.#turns.forget();
  }

  #leave(): void {
    this.#forgetTurns();
    const left = this.#connection;
    this.#connection = null;
    left?.close();
    this.#player.audio.stop();
    this.#turns.newTimeline();
    this.#lastShown = null;
  }

  #activity(): Activity {
    if (this.#turns.speaking) return "speaking";
    return this.#turns.busy || this.#listening ? "listening" : "idle";
  }

  #update(): void {
    const { busy } = this.#turns;
    if (busy !== this.#busy) {
      this.#busy = busy;
      if (!busy) this.#saying = false;
      this.emit("busy", busy);
    }
    const activity = this.#activity();
    if (this.#status.state === "live" && this.#status.activity !== activity) {
      this.#setStatus({ ...this.#status, activity });
    }
  }

  #setStatus(status: AvatarStatus): void {
    this.#status = status;
    this.emit("status", status);
  }
}
