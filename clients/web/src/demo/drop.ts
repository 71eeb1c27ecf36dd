/** Files that are dropped on the page or pasted into it: photos and recordings. */

export interface FileHandlers {
  photo(file: File): void;
  recording(file: File): void;
  unknown(file: File): void;
}

export function acceptFiles(veil: HTMLElement, handlers: FileHandlers): void {
  let depth = 0;
  const show = (visible: boolean): void => {
    veil.classList.toggle("is-visible", visible);
  };
  window.addEventListener("dragenter", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    depth += 1;
    show(true);
  });
  window.addEventListener("dragleave", () => {
    depth = Math.max(0, depth - 1);
    if (depth === 0) show(false);
  });
  window.addEventListener("dragover", (event) => event.preventDefault());
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    show(false);
    take(event.dataTransfer?.files, handlers);
  });
  window.addEventListener("paste", (event) => take(event.clipboardData?.files, handlers));
}

function take(files: FileList | undefined, handlers: FileHandlers): void {
  const file = files?.[0];
  if (!file) return;
  if (file.type.startsWith("image/")) handlers.photo(file);
  else if (file.type.startsWith("audio/") || file.type.startsWith("video/"))
    handlers.recording(file);
  else handlers.unknown(file);
}
