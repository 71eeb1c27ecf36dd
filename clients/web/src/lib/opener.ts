/** How the session is opened the next time: with whom, in which format, with which settings. */
import type { ConnectionOptions } from "./connection-options";
import { type PictureFormat, supportsH264 } from "./decoder";
import { chooseFace, type Face, faceSettings } from "./face";
import {
  connectionOptions,
  type PictureSize,
  type SessionChanges,
  type SessionOptions,
} from "./options";

const DEFAULT_RATE = 24_000;

export class Opener {
  readonly sampleRate: number;
  /** The format in use; `auto` until it is chosen. */
  picture: PictureFormat | "auto";
  #face: Face;
  #size: PictureSize;
  #changes: SessionChanges = {};

  /** Throws AvatarError `invalid_options`. */
  constructor(readonly options: SessionOptions) {
    this.sampleRate = options.sampleRate ?? DEFAULT_RATE;
    this.picture = options.picture ?? "auto";
    this.#face = chooseFace(options);
    this.#size = options;
  }

  /** Its id; null for a face that was brought as a picture. */
  get avatar(): string | null {
    return "avatar" in this.#face ? this.#face.avatar : null;
  }

  /** Throws AvatarError `invalid_options`. */
  show(face: string | Face, size: PictureSize = this.#size): void {
    this.#face = typeof face === "string" ? { avatar: face } : chooseFace(face);
    this.#size = size;
  }

  change(changes: SessionChanges): void {
    this.#changes = { ...this.#changes, ...changes };
  }

  /** Chooses the format if that is still to be done. */
  async connectionOptions(): Promise<ConnectionOptions> {
    if (this.picture === "auto") this.picture = (await supportsH264()) ? "h264" : "jpeg";
    const face = await faceSettings(this.#face);
    return connectionOptions(this.options, {
      face,
      picture: this.picture,
      sampleRate: this.sampleRate,
      size: this.#size,
      changes: this.#changes,
    });
  }
}
