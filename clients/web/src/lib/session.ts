/**
 * One avatar session over a WebSocket: sends audio and commands, hands out media frames, and
 * reconnects with backoff when the connection breaks. It draws nothing and plays nothing.
 */
import { Emitter } from "./emitter";
import type {
  ClientEvent,
  EffectiveSettings,
  ErrorBody,
  ServerEvent,
  SessionLimits,
  SessionTiming,
  VideoFormat,
} from "./events";
import { Backoff, verdictOf } from "./retry";
import { decodeFrame, encodeAudioIn, Flag, Kind, type WireFrame } from "./wire";

export type SessionState = "connecting" | "loading" | "ready" | "reconnecting" | "closed";

export interface SessionOptions {
  /** For instance `wss://host/v1/realtime/avatar`. */
  url: string;
  avatarId: string;
  /** Rate in Hz of the audio that will be sent, and that comes back with the frames. */
  sampleRate: number;
  video: VideoFormat;
  /** Sent as a subprotocol, never in the address. */
  token?: string;
}

/** Why a session is over; `retryable` when a new one is likely to work. */
export interface SessionEnd {
  closeCode: number;
  retryable: boolean;
  error: ErrorBody | null;
}

export interface SessionEvents {
  state: SessionState;
  loading: { stage: string; progress: number };
  settings: EffectiveSettings;
  media: WireFrame;
  cleared: { epoch: number };
  reconnecting: { delayMs: number; attempt: number; error: ErrorBody | null };
  ended: SessionEnd;
  error: ErrorBody;
  event: ServerEvent;
}

const SUBPROTOCOL = "avatar.v1";
/** Samples of one AUDIO_IN message: well below any server's message limit. */
const MAX_MESSAGE_SAMPLES = 9_600;

export class AvatarSession extends Emitter<SessionEvents> {
  #socket: WebSocket | null = null;
  #state: SessionState = "closed";
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #backoff = new Backoff();
  #lastError: ErrorBody | null = null;
  #seq = 0;
  #sentSamples = 0;
  #backlogSamples = 0;
  limits: SessionLimits = {};
  timing: SessionTiming = {};

  constructor(readonly options: SessionOptions) {
    super();
  }

  get state(): SessionState {
    return this.#state;
  }

  /** Milliseconds of audio that were sent and have not come back with frames. */
  get backlogMs(): number {
    return (this.#backlogSamples * 1000) / this.options.sampleRate;
  }

  /** Bytes that wait in this browser for the network. */
  get unsentBytes(): number {
    return this.#socket?.bufferedAmount ?? 0;
  }

  connect(): void {
    clearTimeout(this.#timer);
    this.#setState(this.#backoff.attempt > 0 ? "reconnecting" : "connecting");
    this.#lastError = null;
    this.#seq = 0;
    this.#sentSamples = 0;
    this.#backlogSamples = 0;
    const { url, token } = this.options;
    const protocols = token ? [SUBPROTOCOL, `avatar.auth.${token}`] : [SUBPROTOCOL];
    const socket = new WebSocket(url, protocols);
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.#configure();
    socket.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => {
      if (socket === this.#socket) this.#onMessage(data);
    };
    socket.onclose = (event) => {
      if (socket === this.#socket) this.#onClose(event.code);
    };
  }

  /** PCM16 mono at the session's rate; false when there is no ready session to take it. */
  sendAudio(pcm: Int16Array): boolean {
    const socket = this.#socket;
    if (this.#state !== "ready" || socket?.readyState !== WebSocket.OPEN) return false;
    for (let at = 0; at < pcm.length; at += MAX_MESSAGE_SAMPLES) {
      const piece = pcm.subarray(at, at + MAX_MESSAGE_SAMPLES);
      const ptsUs = Math.round((this.#sentSamples * 1e6) / this.options.sampleRate);
      socket.send(encodeAudioIn(this.#seq, ptsUs, piece));
      this.#seq = (this.#seq + 1) >>> 0;
      this.#sentSamples += piece.length;
      this.#backlogSamples += piece.length;
    }
    return true;
  }

  /** End of the utterance. */
  commit(): void {
    this.send({ type: "input_audio_buffer.commit" });
  }

  /** Barge-in: forget everything that was sent and not yet shown. */
  cancel(): void {
    this.#backlogSamples = 0;
    this.send({ type: "response.cancel" });
  }

  send(event: ClientEvent): void {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(event));
  }

  close(): void {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    if (socket?.readyState === WebSocket.OPEN) {
      socket.send(JSON.stringify({ type: "session.close", drain: false } satisfies ClientEvent));
    }
    socket?.close(1000);
    this.#setState("closed");
  }

  #configure(): void {
    const { avatarId, sampleRate, video } = this.options;
    this.send({
      type: "session.update",
      session: {
        avatar_id: avatarId,
        input_audio: { format: "pcm16", rate: sampleRate },
        output: { video, audio: "pcm16" },
        idle: "generate",
        on_disconnect: "end",
      },
    });
    this.#setState("loading");
  }

  #onMessage(data: string | ArrayBuffer): void {
    if (typeof data === "string") {
      this.#onEvent(JSON.parse(data) as ServerEvent);
      return;
    }
    const frame = decodeFrame(data);
    if (frame.kind !== Kind.Media) return;
    if ((frame.flags & Flag.Idle) === 0) {
      this.#backlogSamples = Math.max(0, this.#backlogSamples - frame.audio.length / 2);
      // The last slice is padded or cut by the server, so the account is settled here.
      if ((frame.flags & Flag.Last) !== 0 && this.backlogMs < 60) this.#backlogSamples = 0;
    }
    this.emit("media", frame);
  }

  #onEvent(event: ServerEvent): void {
    this.emit("event", event);
    switch (event.type) {
      case "session.created":
        this.limits = event.limits ?? {};
        this.timing = event.timing ?? {};
        break;
      case "session.loading":
        this.emit("loading", event);
        break;
      case "session.updated":
        this.#backoff.reset();
        this.emit("settings", event.session ?? {});
        this.#setState("ready");
        break;
      case "output.cleared":
        this.emit("cleared", event);
        break;
      case "error":
        this.#lastError = event.error;
        this.emit("error", event.error);
        break;
      default:
        break;
    }
  }

  #onClose(closeCode: number): void {
    this.#socket = null;
    const error = this.#lastError;
    const verdict = verdictOf(closeCode);
    if (verdict !== "retry") {
      this.#setState("closed");
      this.emit("ended", { closeCode, retryable: verdict !== "fatal", error });
      return;
    }
    const delayMs = this.#backoff.next(error?.retry_after_s);
    this.#setState("reconnecting");
    this.emit("reconnecting", { delayMs, attempt: this.#backoff.attempt, error });
    this.#timer = setTimeout(() => this.connect(), delayMs);
  }

  #setState(state: SessionState): void {
    if (state === this.#state) return;
    this.#state = state;
    this.emit("state", state);
  }
}
