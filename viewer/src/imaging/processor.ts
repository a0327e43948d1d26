/** Drawing by the processor alone, on machines without a graphics card. */

/**
 * Prepares the page for it: one pixel of the page is one pixel of an image, whatever the screen has. It is fast enough so,
 * and Cornerstone3D's own drawing by the processor takes the two for the same.
 */
export function drawPagePixels(): void {
  Object.defineProperty(window, "devicePixelRatio", { configurable: true, get: () => 1 });
}

/**
 * Stands in for WebGL where a browser has none at all. Cornerstone3D asks for a context even for views that it then draws
 * by the processor; nothing is ever drawn with this one.
 */
export function standInForWebGl(): void {
  const nothing = new Proxy(
    { canvas: null, drawingBufferWidth: 1, drawingBufferHeight: 1 } as Record<string | symbol, unknown>,
    { get: (known, name) => (name in known || typeof name === "symbol" ? known[name] : () => null) },
  );
  const original = HTMLCanvasElement.prototype.getContext as (
    this: HTMLCanvasElement,
    kind: string,
    options?: unknown,
  ) => unknown;
  HTMLCanvasElement.prototype.getContext = function (this: HTMLCanvasElement, kind: string, options?: unknown) {
    return kind.includes("webgl") ? nothing : original.call(this, kind, options);
  } as typeof HTMLCanvasElement.prototype.getContext;
}
