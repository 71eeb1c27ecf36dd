/** Sends what the uplink has, as far as it may go now, on the socket of the day. */
import { AvatarError } from "./errors";
import { type Command, Uplink, type UplinkOptions } from "./uplink";

/** What may wait in the browser for the network: a cancel has to wait for it, too. */
const MAX_UNSENT_BYTES = 256 * 1024;
const UNSENT_LOOK_MS = 20;

export class Sender {
  readonly uplink: Uplink;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Audio was refused for want of room, and that was said. */
  #full = false;

  constructor(
    options: UplinkOptions,
    /** That of a live session; null while there is none. */
    readonly socket: () => WebSocket | null,
    readonly failed: (error: AvatarError) => void,
  ) {
    this.uplink = new Uplink(options);
  }

  /** False when too much waits already; the first time that is an error as well. */
  audio(pcm: Int16Array): boolean {
    const taken = this.uplink.audio(pcm);
    if (!taken && !this.#full) {
      const waiting = `${(this.uplink.heldMs / 1000).toFixed(1)} s of audio wait for the server`;
      const message = `${waiting}; what came now was not taken`;
      this.failed(new AvatarError({ code: "input_held_full", message, retryable: true }));
    }
    this.#full = !taken;
    this.pump();
    return taken;
  }

  command(command: Command): boolean {
    const taken = this.uplink.command(command);
    this.pump();
    return taken;
  }

  pump(): void {
    clearTimeout(this.#timer);
    const socket = this.socket();
    if (!socket) return;
    while (socket.bufferedAmount <= MAX_UNSENT_BYTES) {
      const next = this.uplink.next(performance.now());
      if (next === null) return;
      if (typeof next === "number") {
        this.#timer = setTimeout(() => this.pump(), next);
        return;
      }
      socket.send(next);
    }
    this.#timer = setTimeout(() => this.pump(), UNSENT_LOOK_MS);
  }

  /** There is no socket any more. */
  pause(): void {
    clearTimeout(this.#timer);
  }
}
