/** What a connection is told, and what it tells. */
import type { AvatarError } from "./errors";
import type { ServerEvent, SessionSettings } from "./protocol";
import type { BackoffOptions } from "./retry";
import type { ConnectionStatus } from "./status";
import type { WireFrame } from "./wire";

/** What may change while a session runs. */
export type MutableSettings = Pick<SessionSettings, "idle" | "on_disconnect">;

export interface ConnectionOptions {
  /** For instance `wss://host/v1/realtime/avatar`. */
  url: string;
  /** The first `session.update`. */
  settings: SessionSettings;
  /** Sent as a subprotocol, never in the address; a function is asked before every connection. */
  token?: string | (() => string | Promise<string>);
  backoff?: BackoffOptions;
  /** The most audio that waits here for room in the server's buffer. */
  maxHeldMs?: number;
  /** For tests. */
  createSocket?: (url: string, protocols: string[]) => WebSocket;
}

export interface ConnectionEvents {
  status: ConnectionStatus;
  media: WireFrame;
  event: ServerEvent;
  /** Errors that leave the session alive, or say what went down with one. */
  error: AvatarError;
}
