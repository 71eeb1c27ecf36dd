/**
 * What a recording that is encoded anew films: a copy of a canvas, of one size from beginning to end
 * (a busy server lowers that of its pictures, a file cannot), with words in the corner or without.
 */

/** Of the picture's height. */
const TEXT_SHARE = 0.05;
const SMALLEST_PX = 10;
/** Between the words and their plate, and between the plate and the border; of the text's size. */
const PADDING = 0.45;

export class Film {
  readonly canvas = document.createElement("canvas");
  readonly #context: CanvasRenderingContext2D;

  /** Of the size that `source` has now; `words` for the lower right corner may be empty. */
  constructor(
    readonly source: HTMLCanvasElement,
    readonly words: string,
  ) {
    const context = this.canvas.getContext("2d", { alpha: false });
    if (!context) throw new Error("this browser offers no 2D canvas");
    this.#context = context;
    this.canvas.width = source.width;
    this.canvas.height = source.height;
    this.draw();
  }

  /** Takes over what the source shows now, as large as it fits. */
  draw(): void {
    const { width, height } = this.canvas;
    const scale = Math.min(width / this.source.width, height / this.source.height);
    const [across, down] = [this.source.width * scale, this.source.height * scale];
    if (across < width || down < height) this.#context.clearRect(0, 0, width, height);
    const [left, top] = [(width - across) / 2, (height - down) / 2];
    this.#context.drawImage(this.source, left, top, across, down);
    if (this.words !== "") this.#write(width, height);
  }

  #write(width: number, height: number): void {
    const context = this.#context;
    const wishedPx = Math.max(SMALLEST_PX, TEXT_SHARE * height);
    context.font = font(wishedPx);
    const room = width / (context.measureText(this.words).width + 4 * PADDING * wishedPx);
    const sizePx = wishedPx * Math.min(1, room);
    context.font = font(sizePx);
    const padding = PADDING * sizePx;
    const plateWidth = context.measureText(this.words).width + 2 * padding;
    const plateHeight = sizePx + 2 * padding;
    const left = width - plateWidth - padding;
    const top = height - plateHeight - padding;
    context.fillStyle = "rgb(0 0 0 / 62%)";
    context.fillRect(left, top, plateWidth, plateHeight);
    context.fillStyle = "white";
    context.textBaseline = "middle";
    context.fillText(this.words, left + padding, top + plateHeight / 2);
  }
}

function font(sizePx: number): string {
  return `600 ${sizePx}px system-ui, sans-serif`;
}
