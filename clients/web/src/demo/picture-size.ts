/** The choice of how large the pictures are: the model's own size, and larger ones that it offers. */
import type { AvatarSession, PictureSize } from "../lib";
import { byId, element } from "./dom";

type Offer = NonNullable<NonNullable<AvatarSession["server"]>["output"]>;

/** Times the model's own size. */
const SCALES = [1, 1.5, 2];

/** Sizes that are worth a choice, the model's own first. */
export function offeredSizes(offer: Offer): Required<PictureSize>[] {
  return SCALES.map((scale) => ({
    width: scale * offer.width,
    height: scale * offer.height,
  })).filter(
    ({ width, height }) =>
      width <= offer.max_width && height <= offer.max_height && width % 2 === 0 && height % 2 === 0,
  );
}

/** `?size=384` asks for it from the start. */
export function wantedSize(query: URLSearchParams): PictureSize {
  const side = Number(query.get("size"));
  return Number.isInteger(side) && side > 0 ? { width: side } : {};
}

/** The control at the foot of the page; there while there is something to choose. */
export class PictureSizeChoice {
  readonly #select = byId("picture-size", HTMLSelectElement);
  #sizes: Required<PictureSize>[] = [];

  constructor(readonly choose: (size: Required<PictureSize>) => void) {
    this.#select.addEventListener("change", () => {
      const size = this.#sizes[this.#select.selectedIndex];
      if (size) this.choose(size);
    });
  }

  /** Shows what the session that is live has, among what its server offers. */
  show(offer: Offer | undefined, current: Required<PictureSize>): void {
    const sizes = offer ? offeredSizes(offer) : [];
    const same = (size: Required<PictureSize>): boolean => size.width === current.width;
    this.#sizes = sizes.some(same) ? sizes : [current, ...sizes];
    const options = this.#sizes.map((size) =>
      element("option", { selected: same(size) }, `${size.width} × ${size.height}`),
    );
    this.#select.replaceChildren(...options);
    this.#select.disabled = options.length < 2;
  }

  /** The choice could not be had. */
  restore(): void {
    for (const option of this.#select.options) option.selected = option.defaultSelected;
  }
}
