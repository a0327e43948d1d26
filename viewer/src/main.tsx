/** Where the page begins. */
import { render } from "preact";
import { App } from "./app";
import { begin, followAddress } from "./reading/session";
import "./styles/base.css";
import "./styles/page.css";
import "./styles/list.css";
import "./styles/images.css";
import "./styles/panel.css";
import "./styles/finding.css";
import "./styles/study.css";
import "./testing";

const place = document.getElementById("app");
if (place !== null) {
  followAddress();
  render(<App />, place);
  void begin();
}
