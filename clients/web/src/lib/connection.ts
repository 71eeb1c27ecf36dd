/**
 * One avatar session over a WebSocket: sends audio and commands, hands out media frames, and comes
 * back after a loss: with `session.resume` while the server holds the session, with a new session
 * otherwise. It draws nothing and plays nothing.
 */
import type { ConnectionEvents, ConnectionOptions, MutableSettings } from "./connection-options";
import { Emitter } from "./emitter";
import {
  type AvatarError,
  ConnectionLostError,
  errorFromBody,
  errorFromClose,
  SpeechLostError,
} from "./errors";
import { parseEvent } from "./parse";
import {
  type ClientEvent,
  type EffectiveSettings,
  type ErrorEvent,
  Kind,
  type ServerEvent,
  type SessionCreated,
  type SessionResumed,
  type SessionSettings,
  SUBPROTOCOL,
  TOKEN_SUBPROTOCOL_PREFIX,
} from "./protocol";
import { Resumption } from "./resumption";
import { Backoff, verdictOf } from "./retry";
import { Sender } from "./sender";
import type { ConnectionStatus } from "./status";
import type { Command } from "./uplink";
import { SilenceWatch } from "./watch";
import { decodeFrame, WireError, type WireFrame } from "./wire";

/** An error is the reason of a close that follows it within this time. */
const ANNOUNCED_MS = 3_000;
/** `WebSocket.OPEN`, also where there is no such global. */
const OPEN = 1;

export class Connection extends Emitter<ConnectionEvents> {
  #socket: WebSocket | null = null;
  #status: ConnectionStatus = { state: "connecting" };
  #retryTimer: ReturnType<typeof setTimeout> | undefined;
  readonly #backoff: Backoff;
  #lastError: AvatarError | null = null;
  #lastErrorAtMs = 0;
  readonly #resumption = new Resumption();
  readonly #sender: Sender;
  readonly #watch = new SilenceWatch({
    ask: () => this.#send({ type: "session.ping", t: performance.now() }),
    lost: () => {
      this.#socket?.close();
      this.#onClose(1006);
    },
  });
  #settings: SessionSettings;
  /** Settings that the session which is being opened was not told. */
  #late: MutableSettings | null = null;
  #created: SessionCreated | null = null;

  constructor(readonly options: ConnectionOptions) {
    super();
    this.#settings = options.settings;
    this.#backoff = new Backoff(options.backoff);
    const sampleRate = options.settings.input_audio?.rate ?? 16_000;
    const { maxHeldMs } = options;
    this.#sender = new Sender(
      { sampleRate, ...(maxHeldMs === undefined ? {} : { maxHeldMs }) },
      () => (this.live && this.#socket?.readyState === OPEN ? this.#socket : null),
      (error) => this.emit("error", error),
    );
  }

  /** What the server said of itself and of the session when it began; null before that. */
  get created(): SessionCreated | null {
    return this.#created;
  }

  get status(): ConnectionStatus {
    return this.#status;
  }

  get live(): boolean {
    return this.#status.state === "live";
  }

  /** Whether speech and commands are taken: now, or for the session that is being resumed. */
  get accepts(): boolean {
    return this.live || (this.#status.state === "reconnecting" && this.#status.resuming);
  }

  /** A cancel was given that the server has not carried out yet. */
  get cancelling(): boolean {
    return this.#sender.uplink.cancelling;
  }

  get sampleRate(): number {
    return this.#sender.uplink.sampleRate;
  }

  /** Milliseconds of audio that were taken and have not come back with frames. */
  get backlogMs(): number {
    return this.#sender.uplink.backlogMs;
  }

  /** Bytes that wait in this browser for the network. */
  get unsentBytes(): number {
    return this.#socket?.bufferedAmount ?? 0;
  }

  /** Connects, or tries again at once while it waits to. */
  async connect(): Promise<void> {
    clearTimeout(this.#retryTimer);
    this.#dropSocket();
    if (this.#backoff.attempt === 0) this.#setStatus({ state: "connecting" });
    this.#lastError = null;
    let token: string | undefined;
    try {
      token = await this.#token();
    } catch (error) {
      this.#retryLater(
        new ConnectionLostError({ code: "connection_lost", message: String(error) }),
      );
      return;
    }
    if (this.#status.state === "closed" || this.#socket) return;
    const protocols = token ? [SUBPROTOCOL, TOKEN_SUBPROTOCOL_PREFIX + token] : [SUBPROTOCOL];
    const create = this.options.createSocket ?? ((url, offered) => new WebSocket(url, offered));
    const socket = create(this.options.url, protocols);
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.#greet();
    socket.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => {
      if (socket === this.#socket) this.#onMessage(data);
    };
    socket.onclose = (event) => {
      if (socket === this.#socket) this.#onClose(event.code);
    };
    this.#watch.start();
  }

  /**
   * PCM16 mono at the session's rate. It goes out as fast as the server has room; false when there is
   * no session to take it, or too much waits already, which is also an error `input_held_full`.
   */
  sendAudio(pcm: Int16Array): boolean {
    return this.accepts && this.#sender.audio(pcm);
  }

  /** Says it after the audio and the commands before it; false when nobody is there to hear it. */
  command(command: Command): boolean {
    return this.accepts && this.#sender.command(command);
  }

  /** Changes settings for this session and those that may follow it. */
  update(settings: MutableSettings): void {
    this.#settings = { ...this.#settings, ...settings };
    if (!this.command({ type: "session.update", session: settings })) {
      this.#late = { ...this.#late, ...settings };
    }
  }

  /** Says what matters now or never: it is dropped while the session is not live. */
  tell(event: ClientEvent): void {
    if (this.live) this.#send(event);
  }

  close(): void {
    clearTimeout(this.#retryTimer);
    this.#send({ type: "session.close", drain: false });
    this.#dropSocket();
    this.#setStatus({ state: "closed" });
  }

  #send(event: ClientEvent): void {
    if (this.#socket?.readyState === OPEN) this.#socket.send(JSON.stringify(event));
  }

  async #token(): Promise<string | undefined> {
    const { token } = this.options;
    return typeof token === "function" ? token() : token;
  }

  #greet(): void {
    const resume = this.#resumption.attempt(performance.now());
    if (!resume) {
      this.#forgetSession();
      this.#late = null;
    }
    this.#send(resume ?? { type: "session.update", session: this.#settings });
  }

  #forgetSession(): void {
    this.#resumption.forget();
    const undelivered = this.#sender.uplink.restart();
    if (!undelivered) return;
    this.emit("error", new SpeechLostError(undelivered.speechMs, undelivered.commands));
  }

  #onMessage(data: string | ArrayBuffer): void {
    this.#watch.heard();
    try {
      if (typeof data === "string") this.#onEvent(parseEvent(data));
      else this.#onFrame(decodeFrame(data));
    } catch (error) {
      // One broken message is no reason to lose a session; anything else is a bug to be seen.
      if (!(error instanceof WireError)) throw error;
      const body = { type: "invalid_request_error", code: "invalid_frame", message: error.message };
      this.emit("error", errorFromBody(body));
    }
  }

  #onFrame(frame: WireFrame): void {
    this.#resumption.seen(frame.seq);
    if (frame.kind !== Kind.Media) return;
    this.#sender.uplink.returned(frame);
    this.#sender.pump();
    this.emit("media", frame);
  }

  #onEvent(event: ServerEvent): void {
    // The greeting of a socket that is to resume belongs to no session yet.
    if (!this.#resumption.attempting) this.#resumption.heard(event.event_id);
    if (this.#sender.uplink.heard(event)) return;
    this.#follow(event);
    this.#sender.pump();
    this.emit("event", event);
  }

  #follow(event: ServerEvent): void {
    switch (event.type) {
      case "session.created":
        this.#onCreated(event);
        break;
      case "session.queued":
        if (this.#resumption.attempting) break;
        this.#setStatus({
          state: "queued",
          position: event.position,
          etaS: event.eta_s ?? null,
        });
        break;
      case "session.loading":
        // The session that is resumed is still the one that was lost.
        if (this.#resumption.attempting) break;
        this.#setStatus({ state: "loading", stage: event.stage, progress: event.progress });
        break;
      case "session.updated":
        this.#resumption.configured(event.session.on_disconnect);
        if (!this.live) this.#goLive(event.session, false);
        break;
      case "session.resumed":
        this.#onResumed(event);
        break;
      case "session.expiring":
        this.#resumption.expiring(event);
        break;
      case "error":
        this.#onError(event);
        break;
      default:
        break;
    }
  }

  #onCreated(event: SessionCreated): void {
    this.#resumption.created(event.resume);
    if (this.#resumption.attempting) return;
    this.#created = event;
    this.#sender.uplink.configure(event.limits, event.timing);
  }

  #onResumed(event: SessionResumed): void {
    this.#resumption.resumed(event.resume);
    this.#sender.uplink.resumed(event, this.#created?.timing?.fps);
    this.#goLive(event.session, true);
  }

  #onError({ error }: ErrorEvent): void {
    this.#lastError = errorFromBody(error);
    this.#lastErrorAtMs = performance.now();
    this.emit("error", this.#lastError);
  }

  #goLive(settings: EffectiveSettings, resumed: boolean): void {
    this.#backoff.reset();
    if (!resumed) this.#resumption.begun();
    this.#setStatus({ state: "live", settings, resumed });
    const late = this.#late;
    this.#late = null;
    if (late) this.command({ type: "session.update", session: late });
  }

  #onClose(closeCode: number): void {
    const wasLive = this.live;
    this.#dropSocket();
    const announced = performance.now() - this.#lastErrorAtMs < ANNOUNCED_MS;
    const error =
      this.#lastError && announced
        ? this.#lastError.withCloseCode(closeCode)
        : errorFromClose(closeCode);
    const restartS = error.code === "engine_restarting" ? (error.retryAfterS ?? 0) : null;
    const refused = this.#resumption.lost({ closeCode, wasLive, restartS }, performance.now());
    const verdict = refused ? "retry" : verdictOf(closeCode);
    if (verdict === "retry") {
      this.#retryLater(error);
      return;
    }
    this.#forgetSession();
    if (verdict === "done") this.#setStatus({ state: "closed" });
    else this.#setStatus({ state: verdict === "expired" ? "expired" : "refused", error });
  }

  #retryLater(error: AvatarError): void {
    const delayMs = this.#backoff.next(error.retryAfterS);
    const { attempt } = this.#backoff;
    const resuming = this.#resumption.isPossibleAt(performance.now() + delayMs);
    if (!resuming) this.#forgetSession();
    this.#setStatus({ state: "reconnecting", attempt, delayMs, resuming, error });
    this.#retryTimer = setTimeout(() => void this.connect(), delayMs);
  }

  #dropSocket(): void {
    this.#sender.pause();
    this.#watch.stop();
    const socket = this.#socket;
    this.#socket = null;
    if (socket && socket.readyState <= OPEN) socket.close(1000);
  }

  #setStatus(status: ConnectionStatus): void {
    this.#status = status;
    this.emit("status", status);
  }
}
