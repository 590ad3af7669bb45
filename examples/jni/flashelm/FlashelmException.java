package flashelm;

import java.io.IOException;
import java.nio.charset.StandardCharsets;

/** Why a call of the library failed: a code for the program, a message for people. */
public final class FlashelmException extends IOException {
  /** Of flashelm_code, whose values never change. */
  public static final int NOT_FOUND = 2;
  public static final int BUDGET_INFEASIBLE = 4;

  private static final long serialVersionUID = 1;
  private final int code;

  /** Called by the native part, where a message is UTF-8. */
  FlashelmException(int code, byte[] message) {
    super(new String(message, StandardCharsets.UTF_8));
    this.code = code;
  }

  public int code() {
    return code;
  }
}
