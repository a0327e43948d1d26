/** The form that asks who one is. */
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { logIn } from "../reading/session";

export function Login() {
  const [wrong, setWrong] = useState("");
  const [busy, setBusy] = useState(false);
  const [elsewhere, setElsewhere] = useState(false);
  const first = useRef<HTMLInputElement>(null);
  useLayoutEffect(() => first.current?.focus(), []);
  useEffect(() => {
    fetch("api/login/oidc", { redirect: "manual" }).then(
      (answer) => setElsewhere(answer.type === "opaqueredirect"),
      () => undefined,
    );
  }, []);
  const submit = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    const given = new FormData(event.currentTarget as HTMLFormElement);
    setBusy(true);
    try {
      await logIn(String(given.get("name")), String(given.get("password")));
    } catch (error) {
      setWrong(error instanceof Error ? error.message : String(error));
    } finally {
      setBusy(false);
    }
  };
  return (
    <main class="login">
      <form onSubmit={(event) => void submit(event)} data-testid="login-form" aria-label="Log in">
        <h1>Spicula</h1>
        <label>
          Name
          <input name="name" autocomplete="username" required ref={first} data-testid="login-name" />
        </label>
        <label>
          Password
          <input
            name="password"
            type="password"
            autocomplete="current-password"
            required
            data-testid="login-password"
          />
        </label>
        {wrong !== "" && (
          <p role="alert" class="wrong">
            {wrong}
          </p>
        )}
        <button type="submit" class="main" disabled={busy} data-testid="login-submit">
          Log in
        </button>
        {elsewhere && (
          <p>
            <a href="api/login/oidc">Log in with your organization</a>
          </p>
        )}
      </form>
    </main>
  );
}
