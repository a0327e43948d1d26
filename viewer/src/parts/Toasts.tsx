/** Messages at the edge of the page. */
import { close, toasts } from "../reading/toasts";

export function Toasts() {
  return (
    <div class="toasts" aria-live="polite">
      {toasts.value.map((toast) => (
        <div
          key={toast.id}
          class={`toast ${toast.kind}`}
          role={toast.kind === "error" ? "alert" : "status"}
          data-testid="toast"
        >
          <div>
            <p>{toast.text}</p>
            {toast.lines.length > 0 && (
              <ul data-testid="toast-lines">
                {toast.lines.map((line, number) => (
                  <li key={number}>{line}</li>
                ))}
              </ul>
            )}
          </div>
          <button type="button" aria-label="Close the message" onClick={() => close(toast.id)}>
            ✕
          </button>
        </div>
      ))}
    </div>
  );
}
