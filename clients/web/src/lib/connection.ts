/**
 * One avatar session over a WebSocket: sends audio and commands, hands out media frames, and comes
 * back after a loss: with `session.resume` while the server holds the session, with a new session
 * otherwise. It draws nothing and plays nothing.
 */
import { Emitter } from "./emitter";
import { type AvatarError, ConnectionLostError, errorFromBody, errorFromClose } from "./errors";
import { parseEvent } from "./parse";
import {
  type ClientEvent,
  type EffectiveSettings,
  Kind,
  type Limits,
  type ServerEvent,
  type SessionSettings,
  SUBPROTOCOL,
  type Timing,
  TOKEN_SUBPROTOCOL_PREFIX,
} from "./protocol";
import { Resumption } from "./resumption";
import { Backoff, type BackoffOptions, verdictOf } from "./retry";
import type { ConnectionStatus } from "./status";
import { Uplink } from "./uplink";
import { decodeFrame, WireError, type WireFrame } from "./wire";

export interface ConnectionOptions {
  /** For instance `wss://host/v1/realtime/avatar`. */
  url: string;
  /** The first `session.update`. */
  settings: SessionSettings;
  /** Sent as a subprotocol, never in the address; a function is asked before every connection. */
  token?: string | (() => string | Promise<string>);
  backoff?: BackoffOptions;
  /** For tests. */
  createSocket?: (url: string, protocols: string[]) => WebSocket;
}

export interface ConnectionEvents {
  status: ConnectionStatus;
  media: WireFrame;
  event: ServerEvent;
  /** Errors that leave the session alive. */
  error: AvatarError;
}

/** A server that is silent for so long is asked for a sign of life, and given up after the second. */
const ASK_AFTER_MS = 12_000;
const LOST_AFTER_MS = 18_000;
const WATCH_MS = 2_000;
/** An error is the reason of a close that follows it within this time. */
const ANNOUNCED_MS = 3_000;
/** `WebSocket.OPEN`, also where there is no such global. */
const OPEN = 1;

export class Connection extends Emitter<ConnectionEvents> {
  #socket: WebSocket | null = null;
  #status: ConnectionStatus = { state: "connecting" };
  #retryTimer: ReturnType<typeof setTimeout> | undefined;
  #watchTimer: ReturnType<typeof setInterval> | undefined;
  readonly #backoff: Backoff;
  #lastError: AvatarError | null = null;
  #lastErrorAtMs = 0;
  readonly #resumption = new Resumption();
  readonly #uplink: Uplink;
  #heardAtMs = 0;
  limits: Limits | null = null;
  timing: Timing | null = null;
  sessionId: string | null = null;

  constructor(readonly options: ConnectionOptions) {
    super();
    this.#backoff = new Backoff(options.backoff);
    this.#uplink = new Uplink(options.settings.input_audio?.rate ?? 16_000);
  }

  get status(): ConnectionStatus {
    return this.#status;
  }

  get live(): boolean {
    return this.#status.state === "live";
  }

  get sampleRate(): number {
    return this.#uplink.sampleRate;
  }

  /** Milliseconds of audio that were sent and have not come back with frames. */
  get backlogMs(): number {
    return this.#uplink.backlogMs;
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
    this.#heardAtMs = performance.now();
    clearInterval(this.#watchTimer);
    this.#watchTimer = setInterval(() => this.#watch(), WATCH_MS);
  }

  /** PCM16 mono at the session's rate; false when there is no live session to take it. */
  sendAudio(pcm: Int16Array): boolean {
    const socket = this.#socket;
    if (!this.live || socket?.readyState !== OPEN) return false;
    for (const message of this.#uplink.messages(pcm)) socket.send(message);
    return true;
  }

  /** Barge-in: forget everything that was sent and not yet shown. */
  cancel(fadeMs: number): void {
    this.#uplink.cancelled();
    this.send({ type: "response.cancel", fade_ms: fadeMs });
  }

  send(event: ClientEvent): void {
    if (this.#socket?.readyState === OPEN) this.#socket.send(JSON.stringify(event));
  }

  close(): void {
    clearTimeout(this.#retryTimer);
    clearInterval(this.#watchTimer);
    this.send({ type: "session.close", drain: false });
    this.#dropSocket();
    this.#setStatus({ state: "closed" });
  }

  async #token(): Promise<string | undefined> {
    const { token } = this.options;
    return typeof token === "function" ? token() : token;
  }

  #greet(): void {
    const resume = this.#resumption.attempt(performance.now());
    if (!resume) this.#forgetSession();
    this.send(resume ?? { type: "session.update", session: this.options.settings });
  }

  #forgetSession(): void {
    this.#resumption.forget();
    this.#uplink.restart();
  }

  #onMessage(data: string | ArrayBuffer): void {
    this.#heardAtMs = performance.now();
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
    this.#uplink.returned(frame);
    this.emit("media", frame);
  }

  #onEvent(event: ServerEvent): void {
    this.#follow(event);
    this.emit("event", event);
  }

  #follow(event: ServerEvent): void {
    // The greeting of a socket that is to resume belongs to no session yet.
    if (!this.#resumption.attempting) this.#resumption.heard(event.event_id);
    switch (event.type) {
      case "session.created":
        this.limits = event.limits ?? null;
        this.timing = event.timing ?? null;
        this.sessionId = event.session_id;
        this.#resumption.created(event.resume);
        break;
      case "session.queued":
        this.#setStatus({
          state: "queued",
          position: event.position,
          etaS: event.eta_s ?? null,
        });
        break;
      case "session.loading":
        this.#setStatus({ state: "loading", stage: event.stage, progress: event.progress });
        break;
      case "session.updated":
        if (!this.live) this.#goLive(event.session, false);
        break;
      case "session.resumed":
        this.#resumption.resumed(event.resume);
        this.sessionId = event.session_id;
        this.#goLive(event.session, true);
        break;
      case "session.expiring":
        this.#resumption.expiring(event);
        break;
      case "error":
        this.#lastError = errorFromBody(event.error);
        this.#lastErrorAtMs = performance.now();
        this.emit("error", this.#lastError);
        break;
      default:
        break;
    }
  }

  #goLive(settings: EffectiveSettings, resumed: boolean): void {
    this.#backoff.reset();
    if (!resumed) this.#resumption.begun();
    this.#setStatus({ state: "live", settings, resumed });
  }

  #onClose(closeCode: number): void {
    const wasLive = this.live;
    this.#dropSocket();
    const announced = performance.now() - this.#lastErrorAtMs < ANNOUNCED_MS;
    const error =
      this.#lastError && announced
        ? this.#lastError.withCloseCode(closeCode)
        : errorFromClose(closeCode);
    const refused = this.#resumption.lost(closeCode, wasLive, performance.now());
    const verdict = refused ? "retry" : verdictOf(closeCode);
    if (verdict === "retry") {
      this.#retryLater(error);
      return;
    }
    clearInterval(this.#watchTimer);
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

  /** A connection can die without a word: a server that says nothing at all is gone. */
  #watch(): void {
    const silentMs = performance.now() - this.#heardAtMs;
    if (silentMs > LOST_AFTER_MS) {
      this.#socket?.close();
      this.#onClose(1006);
    } else if (silentMs > ASK_AFTER_MS) {
      this.send({ type: "session.ping", t: performance.now() });
    }
  }

  #dropSocket(): void {
    const socket = this.#socket;
    this.#socket = null;
    if (socket && socket.readyState <= OPEN) socket.close(1000);
  }

  #setStatus(status: ConnectionStatus): void {
    this.#status = status;
    this.emit("status", status);
  }
}
