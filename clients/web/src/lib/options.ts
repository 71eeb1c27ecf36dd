/** What a session is told, and what it tells. */
import type { ConnectionOptions } from "./connection";
import type { PictureFormat } from "./decoder";
import type { AvatarError } from "./errors";
import type { ShownFrame } from "./player";
import type { ExpiryReason, IdlePolicy, ResponseStatus, ServerEvent } from "./protocol";
import type { BackoffOptions } from "./retry";
import type { AvatarStatus } from "./status";

export interface SessionOptions {
  /** For instance `wss://host/v1/realtime/avatar`. */
  url: string;
  /** An id of `GET /v1/avatars`. */
  avatar: string;
  /** Where the face is drawn; it takes the size of the model's frames. */
  canvas: HTMLCanvasElement;
  /** A token, or a function that gets one: it is asked before every connection. */
  token?: string | (() => string | Promise<string>);
  /** Hz, of the audio sent and heard; default 24,000. */
  sampleRate?: number;
  /** `auto`, the default: H.264 where the browser decodes it, else JPEG. */
  picture?: PictureFormat | "auto";
  /** Of JPEG pictures, 1 to 100. */
  quality?: number;
  seed?: number;
  /** What is shown while nobody speaks; default `generate`. */
  idle?: IdlePolicy;
  /** How fast to come back after a loss. */
  backoff?: BackoffOptions;
}

export interface SessionEvents {
  status: AvatarStatus;
  /** A frame was drawn. */
  shown: ShownFrame;
  /** True while there is something that `cancel` would stop. */
  busy: boolean;
  /** Milliseconds from the begin of an utterance to its first frame on the screen. */
  firstFrame: number;
  /** A response was shown to its end, or ended early; once for each. */
  finished: { response: number; status: ResponseStatus };
  /** The picture now comes in another format. */
  fallback: { picture: PictureFormat; reason: string };
  /** Something was refused; the session lives on, or `status` says that it does not. */
  warning: AvatarError;
  /**
   * The server will end the session in `deadlineS` seconds. `resumable`: it goes on elsewhere by
   * itself.
   */
  expiring: { reason: ExpiryReason; deadlineS: number; resumable: boolean };
  /** Every event of the server, also those of later versions. */
  event: ServerEvent;
}

/** The first `session.update` for these options, and how to reach the server. */
export function connectionOptions(
  { url, token, seed, idle, quality, backoff }: SessionOptions,
  avatar: string,
  picture: PictureFormat,
  sampleRate: number,
): ConnectionOptions {
  return {
    url,
    settings: {
      avatar_id: avatar,
      ...(seed === undefined ? {} : { seed }),
      input_audio: { format: "pcm16", rate: sampleRate },
      output: { video: picture, audio: "pcm16", ...(quality === undefined ? {} : { quality }) },
      idle: idle ?? "generate",
      on_disconnect: "hold",
    },
    ...(token === undefined ? {} : { token }),
    ...(backoff === undefined ? {} : { backoff }),
  };
}
