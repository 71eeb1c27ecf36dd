/** The connection in use. One that was left is closed, and what it still says is of no interest. */
import { Connection } from "./connection";
import type { ConnectionEvents, ConnectionOptions } from "./connection-options";
import { Emitter } from "./emitter";

export class Channel extends Emitter<ConnectionEvents> {
  #connection: Connection | null = null;

  get connection(): Connection | null {
    return this.#connection;
  }

  /** Leaves the connection in use for another one. */
  async open(options: ConnectionOptions): Promise<void> {
    this.leave();
    const connection = new Connection(options);
    this.#connection = connection;
    const current = (): boolean => connection === this.#connection;
    connection.on("status", (status) => current() && this.emit("status", status));
    connection.on("error", (error) => current() && this.emit("error", error));
    connection.on("event", (event) => current() && this.emit("event", event));
    connection.on("media", (frame) => current() && this.emit("media", frame));
    await connection.connect();
  }

  leave(): void {
    const left = this.#connection;
    this.#connection = null;
    left?.close();
  }
}
