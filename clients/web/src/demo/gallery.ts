/** The portraits: choose one, add one, remove your own. */
import { AvatarError } from "../lib";
import { type Avatar, deleteAvatar, listAvatars, uploadAvatar } from "./api";
import { element, icon } from "./dom";

const PLUS = "M12 5v14M5 12h14";
const CROSS = "M7 7l10 10M17 7L7 17";
const MAX_UPLOAD_BYTES = 20 * 1024 * 1024;

export interface GalleryHandlers {
  choose(avatar: Avatar): void;
  /** Resolves to whether the person in the photo agrees. */
  consent(photo: File): Promise<boolean>;
  failed(error: AvatarError): void;
}

export class Gallery {
  #avatars: Avatar[] = [];
  #selectedId: string | null = null;
  #uploading = false;

  constructor(
    readonly list: HTMLUListElement,
    readonly input: HTMLInputElement,
    readonly handlers: GalleryHandlers,
  ) {
    input.addEventListener("change", () => {
      const file = input.files?.[0];
      if (file) void this.upload(file);
      input.value = "";
    });
    this.#render();
  }

  get selected(): Avatar | null {
    return this.#avatars.find((avatar) => avatar.id === this.#selectedId) ?? null;
  }

  /** Loads the portraits and chooses `preferredId`, or the first one. Throws AvatarError. */
  async load(preferredId: string | null): Promise<void> {
    this.#avatars = await listAvatars();
    const wanted = this.#selectedId ?? preferredId;
    const avatar = this.#avatars.find(({ id }) => id === wanted) ?? this.#avatars[0];
    this.#render();
    if (avatar) this.choose(avatar);
  }

  choose(avatar: Avatar): void {
    this.#selectedId = avatar.id;
    for (const tile of this.list.querySelectorAll<HTMLElement>("[aria-pressed]")) {
      tile.setAttribute("aria-pressed", String(tile.dataset.id === avatar.id));
    }
    this.handlers.choose(avatar);
  }

  browse(): void {
    this.input.click();
  }

  async upload(file: File): Promise<void> {
    if (this.#uploading) return;
    if (file.size > MAX_UPLOAD_BYTES) {
      this.handlers.failed(tooLarge(file));
      return;
    }
    if (!(await this.handlers.consent(file))) return;
    this.#uploading = true;
    this.#render();
    try {
      const avatar = await uploadAvatar(file, true);
      this.#avatars = [avatar, ...this.#avatars.filter(({ id }) => id !== avatar.id)];
      this.#render();
      this.choose(avatar);
    } catch (error) {
      this.handlers.failed(asAvatarError(error));
    } finally {
      this.#uploading = false;
      this.#render();
    }
  }

  async #remove(avatar: Avatar): Promise<void> {
    try {
      await deleteAvatar(avatar.id);
    } catch (error) {
      this.handlers.failed(asAvatarError(error));
      return;
    }
    this.#avatars = this.#avatars.filter(({ id }) => id !== avatar.id);
    this.#render();
    const [next] = this.#avatars;
    if (this.#selectedId === avatar.id && next) this.choose(next);
  }

  #render(): void {
    const focusedId = (document.activeElement as HTMLElement | null)?.dataset.id;
    this.list.replaceChildren(
      this.#addTile(),
      ...this.#avatars.map((avatar) => this.#tile(avatar)),
    );
    if (focusedId) {
      this.list.querySelector<HTMLElement>(`[data-id="${CSS.escape(focusedId)}"]`)?.focus();
    }
  }

  #addTile(): HTMLLIElement {
    const label = this.#uploading ? "Finding the face" : "Add photo";
    const button = element("button", {
      type: "button",
      class: "tile tile-add",
      "data-id": "add",
      "aria-busy": this.#uploading,
      disabled: this.#uploading,
    });
    button.append(icon(PLUS), element("span", {}, label));
    button.addEventListener("click", () => this.browse());
    return element("li", {}, button);
  }

  #tile(avatar: Avatar): HTMLLIElement {
    const picture = element("img", {
      src: avatar.imageUrl,
      alt: "",
      loading: "lazy",
      decoding: "async",
      draggable: "false",
    });
    picture.addEventListener("error", () => picture.classList.add("is-missing"));
    const button = element("button", {
      type: "button",
      class: "tile",
      title: avatar.name,
      "data-id": avatar.id,
      "aria-label": avatar.name,
      "aria-pressed": String(avatar.id === this.#selectedId),
    });
    button.append(element("span", { class: "tile-initial" }, avatar.name.slice(0, 1)), picture);
    button.addEventListener("click", () => this.choose(avatar));
    const item = element("li", {}, button);
    if (!avatar.builtin) item.append(this.#removeButton(avatar));
    return item;
  }

  #removeButton(avatar: Avatar): HTMLButtonElement {
    const button = element("button", {
      type: "button",
      class: "tile-remove",
      "aria-label": `Delete ${avatar.name}`,
      title: `Delete ${avatar.name}`,
    });
    button.append(icon(CROSS));
    button.addEventListener("click", () => void this.#remove(avatar));
    return button;
  }
}

function tooLarge(file: File): AvatarError {
  const megabytes = Math.round(file.size / 1024 / 1024);
  return new AvatarError({
    code: "message_too_large",
    message: `that photo has ${megabytes} MB; the limit is 20 MB`,
  });
}

function asAvatarError(error: unknown): AvatarError {
  return error instanceof AvatarError
    ? error
    : new AvatarError({ code: "internal_error", message: String(error) });
}
