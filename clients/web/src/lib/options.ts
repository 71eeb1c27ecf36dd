/** What a session is told, and what it tells. */
import type { ConnectionOptions, MutableSettings } from "./connection-options";
import type { PictureFormat } from "./decoder";
import type { AvatarError } from "./errors";
import type { FaceImage } from "./face";
import type { ShownFrame } from "./player";
import type {
  ExpiryReason,
  IdlePolicy,
  OnDisconnect,
  ResponseStatus,
  ServerEvent,
  SessionSettings,
} from "./protocol";
import type { BackoffOptions } from "./retry";
import type { AvatarStatus } from "./status";

export interface SessionOptions {
  /** For instance `wss://host/v1/realtime/avatar`. */
  url: string;
  /** An id of `GET /v1/avatars`; this or `image`. */
  avatar?: string;
  /** A portrait for this session alone. */
  image?: FaceImage;
  /** The person in `image` has agreed; servers may insist on it. */
  consent?: boolean;
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
  /** Pictures a second, one of those that `session.server.output` offers; default the model's. */
  fps?: number;
  /** Pixels, even, within what `session.server.output` offers; one side is enough. Default the model's. */
  width?: number;
  /** As `width`. */
  height?: number;
  seed?: number;
  /** A text for models with `session.server.features.prompt`. */
  prompt?: string;
  /** What is shown while nobody speaks; default `generate`. */
  idle?: IdlePolicy;
  /** `hold`, the default, keeps the session for a while when its connection is lost; or `end`. */
  onDisconnect?: OnDisconnect;
  /** The most audio in milliseconds that waits for room at the server; default 300,000. */
  maxHeldMs?: number;
  /** Whether a page that is left for good ends its session at once; default true. */
  closeOnPageHide?: boolean;
  /** How fast to come back after a loss. */
  backoff?: BackoffOptions;
}

/** Of the pictures, in pixels; one side is enough. */
export type PictureSize = Pick<SessionOptions, "width" | "height">;

/** What may change while a session runs. */
export interface SessionChanges {
  idle?: IdlePolicy;
  onDisconnect?: OnDisconnect;
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

/** How a session is opened, now that all of it is known. */
export interface Opening {
  face: Pick<SessionSettings, "avatar_id" | "image" | "consent">;
  picture: PictureFormat;
  sampleRate: number;
  size: PictureSize;
  changes: SessionChanges;
}

/** The first `session.update` for these options, and how to reach the server. */
export function connectionOptions(
  options: SessionOptions,
  { face, picture, sampleRate, size, changes }: Opening,
): ConnectionOptions {
  const { url, token, backoff, maxHeldMs, seed, prompt, quality, fps } = options;
  const { width, height } = size;
  const { idle = options.idle ?? "generate", onDisconnect = options.onDisconnect ?? "hold" } =
    changes;
  return {
    url,
    settings: {
      ...face,
      input_audio: { format: "pcm16", rate: sampleRate },
      output: { video: picture, audio: "pcm16", ...given({ quality, fps, width, height }) },
      ...given({ seed, prompt }),
      ...mutableSettings({ idle, onDisconnect }),
    },
    ...given({ token, backoff, maxHeldMs }),
  };
}

/** The fields of a later `session.update`. */
export function mutableSettings({ idle, onDisconnect }: SessionChanges): MutableSettings {
  return given({ idle, on_disconnect: onDisconnect });
}

type Given<T> = { [Key in keyof T]?: Exclude<T[Key], undefined> };

/** The same without what is undefined: a server would take null for a value. */
function given<T extends object>(values: T): Given<T> {
  const known = Object.entries(values).filter(([, value]) => value !== undefined);
  return Object.fromEntries(known) as Given<T>;
}
