/** Short notices at the edge of the page; errors stay until they are dismissed. */
import { element, icon } from "./dom";

const CLOSE = "M6 6l12 12M18 6L6 18";
const INFO_MS = 6_000;
const MAX_TOASTS = 3;

export type ToastKind = "info" | "error";

export class Toasts {
  constructor(readonly host: HTMLElement) {}

  show(kind: ToastKind, text: string, link?: HTMLAnchorElement): void {
    const close = element("button", {
      type: "button",
      class: "toast-close",
      "aria-label": "Dismiss",
    });
    close.append(icon(CLOSE));
    const toast = element(
      "div",
      { class: `toast toast-${kind}`, role: kind === "error" ? "alert" : "status" },
      element("p", {}, text, ...(link ? [link] : [])),
      close,
    );
    close.addEventListener("click", () => toast.remove());
    if (kind === "info" && !link) setTimeout(() => toast.remove(), INFO_MS);
    this.host.append(toast);
    while (this.host.childElementCount > MAX_TOASTS) this.host.firstElementChild?.remove();
  }

  clear(): void {
    this.host.replaceChildren();
  }
}
