/**
 * The page's own life: one that is left for good ends its session, so that the server's place is free
 * at once; one that the browser keeps and brings back asks for it again.
 */

export interface PageLifeHandlers {
  /** The page is left and will not come back. */
  gone(): void;
  /** The browser brought the page back; sockets did not survive that. */
  restored(): void;
}

export class PageLife {
  readonly #onHide = ({ persisted }: PageTransitionEvent): void => {
    if (!persisted) this.handlers.gone();
  };
  readonly #onShow = ({ persisted }: PageTransitionEvent): void => {
    if (persisted) this.handlers.restored();
  };

  constructor(
    readonly handlers: PageLifeHandlers,
    readonly page: Window = window,
  ) {
    page.addEventListener("pagehide", this.#onHide);
    page.addEventListener("pageshow", this.#onShow);
  }

  /** Listens no more. */
  close(): void {
    this.page.removeEventListener("pagehide", this.#onHide);
    this.page.removeEventListener("pageshow", this.#onShow);
  }
}
